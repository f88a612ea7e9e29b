"""The first code to run in the archive `r2box`, where it is called `__main__.py`.

It imports straight from the zip: nothing is unpacked, so r2box needs no HOME and no place to write.
The old Pythons that it refuses must be able to parse it: no f-strings, no annotations.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("r2box: needs Python 3.9 or newer, this is %d.%d" % sys.version_info[:2])

from r2box.box import entry

sys.exit(entry())
