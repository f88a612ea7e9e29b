"""What holds for all tests: interrupts, and the profile of the generated examples."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, and no limits on their time: how long one takes is the machine's affair.
settings.register_profile(
    "steady", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    # A shell without job control starts what stands before & with SIGINT ignored, and so would be all that tests start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
