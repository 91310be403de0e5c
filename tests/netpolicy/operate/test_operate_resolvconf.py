"""Which resolvers a process asks is read from a file that a hostile workload may have written."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from netpolicy.operate import resolvconf, resolvers

pytestmark = pytest.mark.kernel


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc" / "resolv.conf"


@contextlib.contextmanager
def jailed(jail: Path) -> Iterator[int]:
    """A process whose root directory is that of the jail."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.chroot(jail.parent.parent)
        os.write(writing, b"x")
        signal.pause()
        os._exit(0)
    try:
        os.read(reading, 1)
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def test_the_addresses_are_read(jail: Path) -> None:
    jail.write_text(
        "# nameserver 192.0.2.9\nsearch a.example\nnameserver 192.0.2.53\nnameserver\nnameserver 2001:db8::53\n"
    )
    with jailed(jail) as pid:
        assert resolvconf.nameservers(pid) == ("192.0.2.53", "2001:db8::53")
        assert resolvers._server(pid) == "192.0.2.53"
    assert resolvconf.nameservers(pid) == ()


def test_a_link_is_followed_as_the_process_itself_would(jail: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "resolv.conf"
    outside.write_text("nameserver 192.0.2.66\n")
    jail.symlink_to(outside)
    with jailed(jail) as pid:
        assert resolvconf.nameservers(pid) == ()
        jail.unlink()
        jail.symlink_to("/run/stub.conf")
        (jail.parent.parent / "run").mkdir()
        (jail.parent.parent / "run" / "stub.conf").write_text("nameserver 192.0.2.53\n")
        assert resolvconf.nameservers(pid) == ("192.0.2.53",)
        jail.unlink()
        jail.symlink_to("../../../../../../../.." + str(outside))
        assert resolvconf.nameservers(pid) == ()


def test_what_is_no_file_or_has_no_end_is_not_waited_for(jail: Path) -> None:
    os.mkfifo(jail)
    with jailed(jail) as pid:
        assert resolvconf.nameservers(pid) == ()
        jail.unlink()
        os.mknod(jail, 0o020644, os.makedev(1, 5))  # /dev/zero
        assert resolvconf.nameservers(pid) == ()
        jail.unlink()
        jail.write_text("nameserver 192.0.2.53\n")
        os.truncate(jail, 1 << 40)
        assert resolvconf.nameservers(pid) == ("192.0.2.53",)


def test_names_are_no_addresses(jail: Path) -> None:
    """Whoever connects to one looks it up, which would carry it to the machine's own resolver."""
    jail.write_text("nameserver secret.attacker.example\nnameserver a,b\n")
    with jailed(jail) as pid:
        assert resolvers._server(pid) is None
