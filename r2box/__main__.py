"""python -m r2box TOOL …"""

import sys

from . import box

sys.exit(box.main(sys.argv))
