"""The first code to run in the archive `r2box`, where it is called `__main__.py`.

It imports straight from the zip: nothing is unpacked, so r2box needs no HOME and no place to write.
The old Pythons that it refuses must be able to parse it: no f-strings, no annotations.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("r2box: needs Python 3.9 or newer, this is %d.%d" % sys.version_info[:2])

import os

from r2box.box import entry

status = entry()
if not sys.flags.dev_mode:  # which has more to say at the end
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # taking the interpreter apart would be a sixth of the time of a short run
    except OSError:
        pass  # Python's own end says what is wrong with them
sys.exit(status)
