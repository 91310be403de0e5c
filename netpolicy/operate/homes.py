"""Where a gate lives: its socket, its memory, its log and its table, all derived from the socket's path.

So that two gates of one machine never share a table or a directory, whoever starts them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

#: The gate of `netpolicy attach`, unless --socket or the environment names another.
DEFAULT_SOCKET = Path("/run/netpolicy/gate.sock")
DEFAULT_STATE = Path("/var/lib/netpolicy")
#: The variable that names another socket.
VARIABLE = "NETPOLICY_GATE"
_TABLE = "netpolicy-attach"


@dataclass(frozen=True, slots=True)
class Home:
    """One gate's places."""

    socket: Path
    state: Path
    """A directory: the gate's memory, its log, and what we remember of each attachment."""
    table: str
    """The kernel's table, where we start the gate."""
    netns: str | None = None
    """The namespace whose processes it confines (the output hook); None: its own, at interfaces."""

    @property
    def log(self) -> Path:
        """What the gate says in the background."""
        return self.state / "gate.log"

    @property
    def background(self) -> Path:
        """Says which process we have started in the background."""
        return self.state / "background.json"

    def note(self, attachment_id: str) -> Path:
        """What we remember of an attachment (`notes`)."""
        return self.state / "attached" / f"{attachment_id}.json"


def home(socket: Path | None, state: Path | None, environ: Mapping[str, str] = os.environ) -> Home:
    """The gate's home for what the command line and the environment say; the defaults where they say nothing."""
    chosen = socket or Path(environ.get(VARIABLE) or DEFAULT_SOCKET)
    chosen = Path(os.path.abspath(chosen))  # noqa: PTH100  # resolve() would follow links, and the gate would not
    if chosen == DEFAULT_SOCKET:
        return Home(chosen, state or DEFAULT_STATE, _TABLE)
    mark = hashlib.sha256(os.fsencode(chosen)).hexdigest()[:8]
    return Home(chosen, state or DEFAULT_STATE / f"{chosen.stem}-{mark}", f"{_TABLE}-{mark}")


def of_namespace(beside: Home, inode: int, path: str) -> Home:
    """The home of the gate for one namespace's output hook, beside that of the interfaces' gate.

    Args:
        beside: The home that the options name.
        inode: The namespace's number, which tells it from every other.
        path: What opens the namespace.
    """
    name = f"ns-{inode}"
    return Home(
        beside.socket.with_name(f"{beside.socket.stem}-{name}.sock"),
        beside.state / name,
        beside.table,
        path,
    )


def all_of(main: Home) -> Iterator[Home]:
    """The home itself, and those of namespaces beside it; `netns` is empty where the namespace can be opened no more."""
    yield main
    for path in sorted(main.socket.parent.glob(f"{main.socket.stem}-ns-*.sock")):
        name = path.stem.removeprefix(f"{main.socket.stem}-")
        found = Home(path, main.state / name, main.table)
        yield replace(found, netns=_opens(found, name.removeprefix("ns-")))


def _opens(found: Home, inode: str) -> str:
    """What opens the namespace of a gate that we have started; empty where nothing does."""
    try:
        path = str(json.loads(found.background.read_text())["netns"])
        return path if str(Path(path).stat().st_ino) == inode else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
