"""Launcher of the archive `r2box`, where it is called `__main__.py`.

Imports directly from the zip: nothing is unpacked, so r2box needs no HOME and no writable directory.
Old Pythons, which it refuses, must be able to parse it: no f-strings, no annotations.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("r2box: needs Python 3.9 or newer, this is %d.%d" % sys.version_info[:2])

import os

from r2box.box import entry

status = entry()
if not sys.flags.dev_mode:  # which reports more at exit
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # finalizing the interpreter would take a sixth of a short run
    except OSError:
        pass  # the regular exit reports the error
sys.exit(status)
