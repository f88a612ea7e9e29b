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
    # A shell without job control starts what stands before & with SIGINT and SIGQUIT ignored, nohup with SIGHUP; all
    # that tests start would inherit that.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
