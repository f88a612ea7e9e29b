"""Job states: links, services and forwards that a client maintains, as JOB and STATUS_IS report them.

    state       meaning                                                        next states
    CONNECTING  an attempt is in progress                                      all others
    LISTENING   accepts connections; each becomes a link or a tunnel           RETRYING, STOPPED
    UP          the link is up, or the service is offered                      RETRYING, STOPPED
    RUNNING     a command runs that makes links itself                         RETRYING, STOPPED
    RETRYING    the last attempt failed; `reason` and `next` apply             CONNECTING, LISTENING, STOPPED
    STOPPED     it failed, and is not retried                                  CONNECTING
"""

from __future__ import annotations

from enum import IntEnum

MAX_TEXT = 512  # characters of each text of a job


class JobKind(IntEnum):
    LINK, SERVICE, FORWARD = range(3)


class JobState(IntEnum):
    CONNECTING, LISTENING, UP, RUNNING, RETRYING, STOPPED = range(6)


TRYING = (JobState.CONNECTING, JobState.RETRYING)
