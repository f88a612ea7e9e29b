"""Jobs on the wire: the links, services and forwards that a program keeps, and their states (JOB and STATUS_IS).

    state       meaning                                                        next states
    CONNECTING  an attempt is being made                                       all others
    LISTENING   connections are accepted, each makes a link or a tunnel        RETRYING, STOPPED
    UP          the link is up, or the service is offered                      RETRYING, STOPPED
    RUNNING     a command runs that makes links itself                         RETRYING, STOPPED
    RETRYING    the last attempt failed; `reason` says why, `next` when        CONNECTING, LISTENING, STOPPED
    STOPPED     it failed, and is not tried again                              CONNECTING
"""

from __future__ import annotations

from enum import IntEnum

MAX_TEXT = 512  # characters of each text of a job


class JobKind(IntEnum):
    LINK, SERVICE, FORWARD = range(3)


class JobState(IntEnum):
    CONNECTING, LISTENING, UP, RUNNING, RETRYING, STOPPED = range(6)


TRYING = (JobState.CONNECTING, JobState.RETRYING)
