"""The MCP server over a fake service, on standard input and output: ``python fake_server.py DIRECTORY``."""

import sys
from pathlib import Path

from fake_service import FakeService

from cspace_mcp import stdio
from cspace_mcp.server import build
from cspace_mcp.tools.desk import Desk

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    worker = (sys.executable, str(Path(__file__).with_name("fake_worker.py")), str(directory))
    desk = Desk(lambda: FakeService(directory), worker)
    stdio.serve(build(desk), desk)
