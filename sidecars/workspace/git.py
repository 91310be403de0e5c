"""The one door to git on the host. Only for commands that need no network.

An inherited ``GIT_DIR`` (a hook that calls us) would aim us at another repository, and a person's aliases, hooks and rewrites
of addresses would change what we read; so both are left outside. Git that talks to a network is another matter: there the
person's own configuration is the point, and it does not pass here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from netpolicy.command import Completed, failed, run
from netpolicy.errors import Exit, UserError

#: Seconds for a command over a large repository.
LONG = 1800.0
_ISOLATED = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
_QUIET = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.devnull, "-c", "gc.auto=0")


def git(
    root: Path, *words: str, stdin: bytes = b"", seconds: float = 60, ok: Sequence[int] = (0,), personal: bool = False
) -> Completed:
    """Run git in a repository.

    Args:
        root: Working directory.
        words: The command and its arguments.
        stdin: What it reads.
        seconds: Deadline.
        ok: Exit statuses that are not failures.
        personal: Read the person's own configuration too.

    Raises:
        UserError: ``git-missing``, ``program-timeout``, ``program-failed``, ``not-yours`` (git does not trust the folder's owner).
    """
    argv = ("git", *_QUIET, *words)
    try:
        done = run(argv, stdin=stdin, seconds=seconds, cwd=root, env=environment(personal), ok=range(256))
        if not personal and _distrusts(done):
            # Only a person's own configuration may say whose repositories to trust (safe.directory).
            done = run(argv, stdin=stdin, seconds=seconds, cwd=root, env=environment(True), ok=range(256))
    except UserError as error:
        if error.code != "program-missing":
            raise
        raise UserError(
            "git-missing", "git is not installed", hint="Install the package git.", exit_status=Exit.MISSING
        ) from error
    if _distrusts(done):
        raise UserError(
            "not-yours",
            f"{root} belongs to another user, so git does not touch it",
            hint=f"If you trust it: git config --global --add safe.directory {root}",
            exit_status=Exit.BAD_INPUT,
        )
    if done.status not in ok:
        raise failed(done)
    return done


def environment(personal: bool = False) -> dict[str, str]:
    """What to change in our environment for git; an empty value removes a variable."""
    inherited = {key: "" for key in os.environ if key.startswith("GIT_")}
    fixed = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return {**inherited, **fixed} if personal else {**inherited, **fixed, **_ISOLATED}


def _distrusts(done: Completed) -> bool:
    return done.status == 128 and b"dubious ownership" in done.stderr
