"""``python -m cspace_mcp`` is ``cspace``."""

import sys

from cspace_mcp.cli import main

if __name__ == "__main__":
    sys.exit(main())
