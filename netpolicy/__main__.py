"""``python -m netpolicy``: the `netpolicy` program."""

import sys

from netpolicy.cli import main

sys.exit(main())
