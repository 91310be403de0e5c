"""What is missing or wrong on this machine, each with what to do about it.

Exit status 0: nothing has failed (there may be warnings); 5: something has.
"""

from __future__ import annotations

import argparse

from cspace_mcp.cli import surface
from cspace_mcp.cli.table import fields
from cspace_mcp.results import Diagnosis
from netpolicy.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    surface.json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Examine, and print."""
    found = surface.service().diagnose()
    document = {**found.model_dump(mode="json"), "healthy": found.healthy}
    surface.answer(args, document, lambda: _told(found))
    return Exit.OK if found.healthy else Exit.FAILED


def _told(found: Diagnosis) -> str:
    rows: list[tuple[str, str]] = []
    for check in found.checks:
        rows.append((f"{check.state:<7}  {check.name}", check.message))
        rows += [("", check.hint)] if check.hint else []
    return fields(rows)
