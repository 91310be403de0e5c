"""An engine over ssh, with a program in ssh's place that connects to a local socket instead."""

from __future__ import annotations

import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netpolicy.errors import UserError
from sidecars.engine import Engine

VERSION = b'{"ApiVersion":"1.41","MinAPIVersion":"1.12","Version":"20.10.0"}'
INFO = b'{"ServerVersion":"20.10.0","Name":"far","NCPU":2}'

BRIDGE = """#!{python}
import os, select, socket, sys
open({record}, "a").write(" ".join(sys.argv[1:]) + "\\n")
engine = socket.socket(socket.AF_UNIX)
engine.connect({socket})
while True:
    ready, _, _ = select.select([0, engine], [], [])
    for one in ready:
        data = os.read(0, 65536) if one == 0 else engine.recv(65536)
        if not data:
            sys.exit(0)
        engine.sendall(data) if one == 0 else os.write(1, data)
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Puts the program in place; yields the file with the command lines it was given."""
    path, record = tmp_path / "engine.sock", tmp_path / "argv"
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(BRIDGE.format(python=sys.executable, record=repr(str(record)), socket=repr(str(path))))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield record
        stop.set()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def answer(connection: socket.socket) -> None:
    with connection:
        while request := connection.recv(65536):
            body = VERSION if b"/version" in request.splitlines()[0] else INFO
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def test_an_engine_is_reached_through_the_users_own_ssh(ssh: Path) -> None:
    with Engine("ssh://me@far:2222", environ={}) as engine:
        assert engine.info().name == "far"
        assert not engine.local
    words = shlex.split(ssh.read_text().splitlines()[0])
    assert words[-5:] == ["--", "far", "docker", "system", "dial-stdio"]
    assert words[words.index("-l") + 1] == "me"
    assert words[words.index("-p") + 1] == "2222"


def test_a_path_names_the_socket_on_the_other_side(ssh: Path) -> None:
    with Engine("ssh://far/run/user/1000/docker.sock", environ={}) as engine:
        engine.info()
    assert "docker --host unix:///run/user/1000/docker.sock system dial-stdio" in ssh.read_text()


def test_what_ssh_says_on_failing_is_what_the_person_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\necho 'me@far: Permission denied (publickey).' >&2\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError, match=r"Permission denied \(publickey\)") as caught:
        Engine("ssh://me@far", environ={}).info()
    assert caught.value.code == "engine-unreachable"


def test_no_ssh_program_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="ssh, which is not installed") as caught:
        Engine("ssh://me@far", environ={}).info()
    assert caught.value.code == "program-missing"
