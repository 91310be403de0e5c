"""Fixtures that every group may use, and the rule that a group cannot be skipped unnoticed.

A test of a marked group (`kernel`, `docker`, `claude`) whose machine lacks what the group needs is skipped with the reason;
where the variable CI is set it fails instead.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from support.claude.client import lacks as claude_lacks

from netpolicy.errors import UserError
from netpolicy.kernel import netns
from netpolicy.lab import Lab

if TYPE_CHECKING:
    from support.machine import DockerLab


@functools.cache
def _kernel_lacks() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("nft", "nsenter", "unshare", "setpriv") if shutil.which(name) is None]
    if missing:
        return f"needs the programs {', '.join(missing)}"
    try:
        os.close(netns.anonymous())
    except UserError as error:
        return f"needs network namespaces: {error.message}"
    return None


@functools.cache
def _docker_lacks() -> str | None:
    missing = [name for name in ("dockerd", "docker") if shutil.which(name) is None]
    return f"needs the programs {', '.join(missing)}" if missing else _kernel_lacks()


@functools.cache
def _claude_lacks() -> str | None:
    return claude_lacks()


GROUPS: dict[str, Callable[[], str | None]] = {
    "kernel": _kernel_lacks,
    "docker": _docker_lacks,
    "claude": _claude_lacks,
}


def pytest_configure() -> None:
    # No test asks a provider of the real internet.
    os.environ["NETPOLICY_REFRESH"] = "off"
    # A shell starts background jobs with Ctrl-C ignored, nohup starts them with the hang-up ignored; every child would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for group, lacks in GROUPS.items():
        if item.get_closest_marker(group) is None:
            continue
        reason = lacks()
        if reason is not None:
            if os.environ.get("CI"):
                pytest.fail(f"the group {group!r} cannot run here: {reason}", pytrace=False)
            pytest.skip(reason)


@pytest.fixture(scope="session")
def docker_machine() -> Iterator[DockerLab]:
    """A whole Docker host with the lab's internet; about half a minute, once a session for all who need one."""
    # Late: most sessions need neither Docker's SDK nor an engine.
    from support.machine import docker_lab

    with docker_lab() as machine:
        yield machine


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An internet of the test's own (docs/lab.md); starts in about a tenth of a second."""
    with Lab() as made:
        yield made
