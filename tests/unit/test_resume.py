"""Resuming a link: the replay buffer, the proofs and the timeout, as arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from r2box.proto.link.replay_buffer import Block, ReplayBuffer
from r2box.proto.link.resume import (
    ANSWER,
    BEGIN,
    FINISH,
    MAX_CANDIDATES,
    MAX_RESUME_TIMEOUT,
    NONCE,
    ResumeAttempt,
    ResumeSession,
    check_resume_timeout,
)
from r2box.proto.memory_limit import Account, MemoryLimit

if TYPE_CHECKING:
    from r2box.proto.wire.fields import Buffer


PATIENCE = 600
LOW, HIGH = b"\x01" * 16, b"\xfe" * 16


# -- the parts ---------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.lists(st.tuples(st.integers(1, 50), st.integers(0, 2)), max_size=4)),
        st.tuples(st.just("ack"), st.integers(-3, 120)),
        st.tuples(st.just("rewind"), st.just(0)),
        st.tuples(st.just("again"), st.integers(0, 60)),
    ),
    max_size=40,
)


@patch("r2box.proto.link.replay_buffer.MIN_VIEW", 20)
@settings(max_examples=300)
@given(STEPS)
def test_kept_is_a_row_of_bytes(steps: list[tuple[str, Any]]) -> None:
    """Beside a plain bytearray: all that was ever sent, and where what is not acknowledged begins, and what is sent
    again."""
    account = Account(MemoryLimit())
    kept, row, acked, behind, serial = ReplayBuffer(account), bytearray(), 0, b"", 0
    for what, how in steps:
        if what == "keep":
            buffers: list[Buffer] = []
            used = []
            for size, kind in how:
                serial += 1
                memory = (Block if kind == 2 else bytearray)(bytes((serial % 251,)) * size)
                buffers.append(memoryview(memory) if kind else memory)
                if kind != 2:
                    used.append(memory)
            joined = b"".join(buffers)
            assert b"".join(kept.append(list(buffers))) == joined
            row += joined
            for memory in used:  # which are used for something else now
                memory[:] = bytes(len(memory))
        elif what == "ack":
            number = acked + how
            assert kept.ack(number) == (number <= len(row))
            acked = max(acked, number) if number <= len(row) else acked
        elif what == "rewind":
            kept.rewind()
            behind = bytes(row[acked:])
        else:
            out = b"".join(kept.replay(how))
            assert out == behind[:how]
            behind = behind[how:]
        assert (kept.sent, kept.acked, kept.has_replay) == (len(row), acked, bool(behind))
        assert b"".join(chunk for chunk, _ in kept._chunks) == row[acked:]
        views = [chunk.obj for chunk, _ in kept._chunks if type(chunk) is memoryview]
        blocks = {id(block): len(block) for block in views if isinstance(block, Block)}
        assert kept.held == account.used >= sum(blocks.values()), "whole blocks are counted"
    kept.stop()
    assert kept.held == account.used == 0
    kept.append([b"only counted"])
    assert kept.sent == len(row) + 12
    assert (list(kept._chunks), kept.has_replay) == ([], False)
    assert kept.ack(kept.sent)
    assert not kept.ack(kept.sent + 1)


def test_both_sides_make_the_same_of_an_attempt() -> None:
    one = ResumeAttempt(True, (b"n" * NONCE, b"m" * NONCE), (LOW, HIGH))
    other = ResumeAttempt(False, (b"m" * NONCE, b"n" * NONCE), (HIGH, LOW))
    for what in (0, BEGIN, ANSWER, FINISH):
        assert one.mac(b"secret", what, 7) == other.mac(b"secret", what, 7)
    assert other.proves(b"secret", one.mac(b"secret", ANSWER, 7), ANSWER, 7)


def test_a_proof_is_of_all_that_it_is_about() -> None:
    nonces, instances = (b"n" * NONCE, b"m" * NONCE), (LOW, HIGH)
    right = ResumeAttempt(True, nonces, instances)
    proof = right.mac(b"secret", ANSWER, 7)
    others = [
        ResumeAttempt(False, nonces, instances),
        ResumeAttempt(True, (b"n" * NONCE, b"x" * NONCE), instances),
        ResumeAttempt(True, (b"x" * NONCE, b"m" * NONCE), instances),
        ResumeAttempt(True, nonces, (LOW, LOW)),
        ResumeAttempt(True, nonces, (HIGH, HIGH)),
    ]
    assert right.proves(b"secret", proof, ANSWER, 7)
    assert not any(other.proves(b"secret", proof, ANSWER, 7) for other in others)
    assert not right.proves(b"secreT", proof, ANSWER, 7)
    assert not right.proves(b"secret", proof, FINISH, 7)
    assert not right.proves(b"secret", proof, ANSWER, 8)
    for wrong in (b"", proof[:-1], proof + b"\0", bytes(32)):
        assert not right.proves(b"secret", wrong, ANSWER, 7)


def test_patience_has_an_end() -> None:
    assert check_resume_timeout(1 << 40, 1 << 50) == MAX_RESUME_TIMEOUT
    assert check_resume_timeout(5, 1 << 50) == check_resume_timeout(1 << 50, 5) == 5


def test_secrets_that_the_first_may_have_are_few() -> None:
    session = ResumeSession(b"s" * 32, PATIENCE)
    numbers = range(3 * MAX_CANDIDATES)
    attempts = [ResumeAttempt(False, (bytes((n,)) * NONCE, b"m" * NONCE), (HIGH, LOW)) for n in numbers]
    for attempt in attempts:
        assert session.accepts_proof(attempt, attempt.mac(b"s" * 32, BEGIN))
        assert not session.accepts_proof(attempt, attempt.mac(b"t" * 32, BEGIN))
    assert len(session._candidates) == MAX_CANDIDATES
    session.finish(attempts[-1])
    assert session.secret == attempts[-1].mac(b"s" * 32, 0)
    assert not session._candidates
