"""Flap damping: what counts as a flap."""

from __future__ import annotations

from r2box.proto.routing.flap_damping import LAST_WAIT, FlapDamping

# -- what is said, and when --------------------------------------------------------------------------------------------


def test_better_and_better_is_no_flapping() -> None:
    """A new network finds its ways so; only for ever may nobody do that."""
    damper = FlapDamping()
    assert [damper.wait("x", 0.1 * at, is_better=True) for at in range(20)] == [0.0] * 20
    assert damper.wait("x", 2.0, is_better=True) == 0.0
    waits = [damper.wait("x", 2.0 + 0.1 * at, is_better=bool(at % 2)) for at in range(200)]
    assert (waits[0], waits[40], waits[-1]) == (0.0, LAST_WAIT, LAST_WAIT)
    assert max(damper.wait("y", 0.001 * at, is_better=True) for at in range(200)) == LAST_WAIT
