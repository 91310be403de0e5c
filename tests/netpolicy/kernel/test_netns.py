"""Namespaces are made, entered by threads that are thrown away, and removed."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netpolicy import command
from netpolicy.errors import UserError
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links

pytestmark = pytest.mark.kernel


def here() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


@pytest.fixture
def name() -> Iterator[str]:
    made = f"npk-{os.getpid()}-{secrets.token_hex(3)}"
    netns.create(made)
    yield made
    netns.delete(made)


def test_named(name: str) -> None:
    assert name in netns.names()
    assert netns.call(name, here) == netns.path_of(name).stat().st_ino != here()
    assert f"{name}" in command.run(["ip", "netns", "list"]).text, "the ip program knows it, too"
    with pytest.raises(UserError) as taken:
        netns.create(name)
    assert taken.value.code == "namespace-exists"
    netns.delete(name)
    assert name not in netns.names()
    netns.delete(name)


def test_without_a_name_it_goes_with_its_descriptor() -> None:
    made = netns.anonymous()
    number = os.fstat(made).st_ino
    assert netns.call(made, here) == number != here()
    assert netns.call(netns.path_of(made), here) == number, "its path works for programs of this process"
    os.close(made)
    with pytest.raises(OSError, match="Bad file descriptor"):
        netns.call(made, here)


def test_the_caller_stays_where_it_is(name: str) -> None:
    before = here()
    threads = set()

    def note() -> int:
        threads.add(threading.get_ident())
        return here()

    assert {netns.call(name, note) for _ in range(5)} == {netns.path_of(name).stat().st_ino}
    assert here() == before
    assert threading.get_ident() not in threads


def test_what_fails_inside_comes_out(name: str) -> None:
    with pytest.raises(ZeroDivisionError):
        netns.call(name, lambda: 1 // 0)


def test_a_missing_namespace_is_not_made() -> None:
    for missing in ("no-such-namespace", "/proc/0/ns/net"):
        with pytest.raises(UserError) as refused:
            netns.call(missing, here)
        assert refused.value.code == "no-namespace"
    assert "no-such-namespace" not in netns.names()


def test_a_file_that_is_no_namespace(tmp_path: Path) -> None:
    """A container's key stays behind as an ordinary file after a restart."""
    (tmp_path / "key").write_text("")
    with pytest.raises(UserError) as refused:
        netns.call(tmp_path / "key", here)
    assert refused.value.code == "not-permitted"


def test_sockets_and_programs_keep_the_namespace(name: str) -> None:
    with Links(name) as links:
        links.up("lo")
    with netns.socket_in(name, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 4999))
        server.listen()
        with netns.socket_in(name, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect(("127.0.0.1", 4999))
        with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", 4999), 1):
            pass
    assert netns.call(name, command.run, ["ls", "/proc/thread-self/ns/"]).status == 0
    assert (
        f"net:[{netns.path_of(name).stat().st_ino}]"
        in netns.call(name, command.run, ["readlink", "/proc/self/ns/net"]).text
    )


def test_settings_are_the_namespaces_own(name: str) -> None:
    def forwarding() -> str:
        return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()

    before = forwarding()
    netns.set_sysctl(name, "net.ipv4.ip_forward", 0 if before == "1" else 1)
    assert netns.call(name, forwarding) != before
    assert forwarding() == before
    with pytest.raises(UserError) as refused:
        netns.set_sysctl(name, "net.ipv4.no_such_setting", 1)
    assert refused.value.code == "no-sysctl"


def test_without_the_right_to_it() -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            try:
                netns.anonymous()
            except UserError as error:
                status = 0 if error.code == "not-permitted" and error.hint else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
