"""`cspace_mcp.worker` over a fake service: ``python fake_worker.py DIRECTORY``."""

import sys
from pathlib import Path

from fake_service import FakeService

from cspace_mcp import worker

if __name__ == "__main__":
    sys.exit(worker.run(lambda: FakeService(Path(sys.argv[1])), sys.stdin.buffer, sys.stdout.buffer))
