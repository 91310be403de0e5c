"""Which uplink is taken, and what people are told where there is none. No namespaces needed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from pathlib import Path

import pytest

from netpolicy.errors import UserError
from netpolicy.run import confine, session, uplink
from netpolicy.run.uplink import Kind, choose


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    programs: set[str] = set()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in programs else None)
    return programs


@pytest.mark.parametrize(
    ("wanted", "privileged", "programs", "taken"),
    [
        (None, True, set(), "host"),
        ("host", True, set(), "host"),
        ("pasta", True, {"pasta"}, "pasta"),
        (None, False, {"pasta", "slirp4netns"}, "pasta"),
        (None, False, {"slirp4netns"}, "slirp4netns"),
        ("slirp4netns", False, {"pasta", "slirp4netns"}, "slirp4netns"),
    ],
)
def test_the_best_that_is_there(
    installed: set[str], wanted: Kind | None, privileged: bool, programs: set[str], taken: str
) -> None:
    installed |= programs
    assert choose(wanted, privileged=privileged) == taken


@pytest.mark.parametrize(
    ("wanted", "privileged", "message"),
    [
        (None, False, "without root, 'netpolicy run' needs the program pasta or slirp4netns, and neither is installed"),
        ("pasta", False, "the program pasta is not installed"),
        ("slirp4netns", True, "the program slirp4netns is not installed"),
        ("host", False, "an uplink through the host's own network needs root"),
    ],
)
def test_what_is_missing_is_named(installed: set[str], wanted: Kind | None, privileged: bool, message: str) -> None:
    with pytest.raises(UserError) as caught:
        choose(wanted, privileged=privileged)
    assert caught.value.message == message
    assert caught.value.code == "no-uplink"
    assert caught.value.exit_status == 3
    hint = caught.value.hint or ""
    assert ("apt install passt" in hint and "apt install slirp4netns" in hint) or "--uplink pasta" in hint
    assert installed == set()


def test_a_machine_without_user_namespaces_says_which_setting_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(_flags: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(confine.syscalls, "unshare", refused)
    monkeypatch.setattr(confine, "_SYSCTL", tmp_path)
    with pytest.raises(UserError, match="does not let an ordinary user make a user namespace") as caught:
        confine.enter_user_namespace()
    assert caught.value.code == "no-user-namespace"
    assert "seccomp" in (caught.value.hint or "")

    setting = tmp_path / "kernel/apparmor_restrict_unprivileged_userns"
    setting.parent.mkdir()
    setting.write_text("1\n")
    with pytest.raises(UserError) as caught:
        confine.enter_user_namespace()
    assert "kernel.apparmor_restrict_unprivileged_userns is 1" in (caught.value.hint or "")


def test_what_was_begun_in_a_thread_is_ended_before_it_is_taken_back() -> None:
    begun, may_end, order = threading.Event(), threading.Event(), []

    def connect() -> None:
        begun.set()
        may_end.wait(10)
        order.append("made")

    async def course() -> None:
        task = asyncio.create_task(session.to_its_end(connect))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, may_end.set)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        order.append("taken back")

    asyncio.run(course())
    assert order == ["made", "taken back"]


def test_reach_reads_as_people_speak() -> None:
    assert [str(uplink.Reach(*has)) for has in ((True, True), (True, False), (False, True), (False, False))] == [
        "IPv4 and IPv6", "IPv4", "IPv6", "nothing",
    ]  # fmt: skip
