"""Names that say who owns what they name, so that whatever a killed process left behind can be collected by the next one."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from netpolicy.kernel import netns

_NAME = re.compile(r"npl-(\d+)-(\d+)-")
_counter = itertools.count()


def fresh() -> str:
    """A prefix for namespaces and directories of one lab: ``npl-PID-BORN-N``; `BORN` tells a re-used process id."""
    return f"npl-{os.getpid()}-{_born(os.getpid())}-{next(_counter)}{secrets.token_hex(2)}"


def collect() -> list[str]:
    """Remove namespaces and directories whose owner is dead; returns what was removed."""
    removed = []
    for name in filter(orphaned, netns.names()):
        netns.delete(name)
        removed.append(name)
    for directory in {tempfile.gettempdir(), "/var/tmp"}:
        for path in Path(directory).glob("npl-*"):
            if orphaned(path.name):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(str(path))
    return removed


def orphaned(name: str) -> bool:
    """Whether a name was made by `fresh` in a process that is no more."""
    match = _NAME.match(name)
    return match is not None and _born(int(match[1])) != match[2]


def _born(pid: int) -> str:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.rpartition(")")[2].split()[19]
