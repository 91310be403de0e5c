"""Running our programs as somebody else: an interpreter and a copy of the code that every user of the machine may read."""

from __future__ import annotations

import atexit
import functools
import importlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from netpolicy import command

#: A user and group that own nothing; no name needs to exist for them.
NOBODY = 64999
_PACKAGES = ("netpolicy", "pyroute2", "dns")
_HELLO = ("-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 11))")


@functools.cache
def python() -> str:
    """An interpreter that every user may execute. Raises AssertionError where there is none."""
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}", "/usr/bin/python3"):
        # By way of env: setpriv itself still has root's capabilities when it looks for the program.
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env"]
        if command.run([*drop, candidate, *_HELLO], ok=range(256)).status == 0:
            return candidate
    raise AssertionError("no Python 3.11 here can be executed by an ordinary user: install python3 system-wide")


@functools.cache
def code() -> Path:
    """A directory for PYTHONPATH with our package and what it needs, readable by everybody; gone at exit."""
    directory = Path(tempfile.mkdtemp(prefix="netpolicy-code-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    for name in _PACKAGES:
        package = Path(str(importlib.import_module(name).__file__)).parent
        shutil.copytree(package, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Compiled once, for an ordinary user could not keep what is compiled here.
    command.run([python(), "-m", "compileall", "-q", "-j", "0", str(directory)], seconds=120)
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return directory


def netpolicy(*words: str) -> list[str]:
    """The command line of `netpolicy` for whoever runs it."""
    start = "import sys; from netpolicy.cli import main; sys.exit(main())"
    return ["env", f"PYTHONPATH={code()}", python(), "-c", start, *words]


def as_user(words: Sequence[str], user: int | None = NOBODY) -> list[str]:
    """The command line that runs `words` as an ordinary user, with /dev/net/tun open to all as distributions have it."""
    if user is None:
        return list(words)
    tun = (
        'd=$(mktemp -d) && mount -t tmpfs none "$d" && mknod -m 666 "$d/tun" c 10 200 && chmod 666 "$d/tun"'
        ' && mount --bind "$d/tun" /dev/net/tun && umount -l "$d" && rmdir "$d"; exec "$@"'
    )
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["sh", "-c", tun, "tun", *drop, *words]
