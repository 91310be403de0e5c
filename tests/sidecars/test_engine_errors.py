from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path

import pytest
import requests.exceptions
import urllib3.exceptions

from netpolicy.errors import Exit, UserError
from sidecars.engine import Engine
from sidecars.engine.address import Address
from sidecars.engine.errors import explain, explained, refused
from sidecars.engine.transport import client

LOCAL = Address("unix:///var/run/docker.sock", "default")

#: What engines (20.10 to 28) say, and what it means.
WORDS = [
    ("write /var/lib/docker/tmp/x: no space left on device", "disk-full"),
    (
        'Conflict. The container name "/cspace-gate" is already in use by container "0ab". You have to remove (or rename) it',
        "name-taken",
    ),
    ("network with name cspace-a-mercury already exists", "name-taken"),
    (
        "cannot create network 0a (csp-1): conflicts with network 0b (csp-1): networks have same bridge name",
        "interface-taken",
    ),
    ("Pool overlaps with other one on this address space", "subnet-taken"),
    ("invalid pool request: Pool overlaps with other one on this address space", "subnet-taken"),
    (
        "cannot create network 0a (br-0a): conflicts with network 0b (br-0b): networks have overlapping IPv4",
        "subnet-taken",
    ),
    ("could not find an available, non-overlapping IPv4 address pool among the defaults to assign", "pools-exhausted"),
    ("all predefined address pools have been fully subnetted", "pools-exhausted"),
    (
        "driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:80 failed: port is already allocated",
        "port-taken",
    ),
    ("No such image: nope:latest", "image-missing"),
    ("manifest for debian:nope not found: manifest unknown: manifest unknown", "image-missing"),
    ("pull access denied for nope, repository does not exist or may require 'docker login'", "registry-denied"),
    (
        'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host',
        "registry-unreachable",
    ),
    (
        'Get "https://r.example/v2/": x509: certificate signed by unknown authority',
        "registry-unreachable",
    ),
    ("No such container: mercury", "container-missing"),
    ("No such container:path: mercury:/x", "container-missing"),
    ("network cspace-a-b not found", "network-missing"),
    ("get cspace-a: no such volume", "volume-missing"),
    ("remove x: volume is in use - [0ab]", "volume-in-use"),
    ("error while removing network: network x id 0a has active endpoints", "network-in-use"),
    ("conflict: unable to delete 0a (cannot be forced) - image is being used by running container 0b", "image-in-use"),
    ("Container 0ab is not running", "not-running"),
    ("Could not find the file /x in container mercury", "path-missing"),
    ("a new and unknown complaint", "engine-refused"),
    ("", "engine-refused"),
]


@pytest.mark.parametrize(("words", "code"), WORDS)
def test_the_engines_words_become_codes(words: str, code: str) -> None:
    error = refused(words, "doing this to that")
    assert error.code == code
    assert error.message.startswith("doing this to that: ")


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with pytest.raises(UserError) as caught:
        Engine(f"unix://{path}", environ={}).info()
    assert (caught.value.code, caught.value.exit_status) == ("engine-unreachable", Exit.MISSING)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("origin", "hint"), [("default", "cspace engine install"), ("DOCKER_HOST", "DOCKER_HOST names this one")]
)
def test_the_hint_depends_on_who_named_the_engine(tmp_path: Path, origin: str, hint: str) -> None:
    address = Address(f"unix://{tmp_path}/docker.sock", origin)
    with pytest.raises(UserError) as caught, explained("asking", address):
        client(address, 1)
    assert hint in str(caught.value.hint)


def test_a_socket_on_which_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    with pytest.raises(UserError, match="nobody listens") as caught:
        Engine(f"unix://{path}", environ={}).info()
    assert caught.value.code == "engine-unreachable"


def test_a_refused_tcp_connection() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="nobody listens") as caught:
            Engine(f"tcp://127.0.0.1:{bound.getsockname()[1]}", environ={}).info()
    assert caught.value.code == "engine-unreachable"


def test_an_engine_that_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    address = Address(f"unix://{path}", "DOCKER_HOST")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(UserError) as caught, explained("asking", address):
            client(address, 1)
    assert caught.value.code == "engine-timeout"
    assert "DOCKER_HOST" in caught.value.message


def test_no_permission_says_how_to_get_it() -> None:
    # Root may open every socket, so the exception is made as requests and urllib3 would wrap it.
    inner = urllib3.exceptions.ProtocolError("Connection aborted.", PermissionError(errno.EACCES, "Permission denied"))
    error = explain(requests.exceptions.ConnectionError(inner), "asking", LOCAL)
    assert error.code == "engine-permission"
    assert "usermod -aG docker" in str(error.hint)


def test_somebody_who_does_not_speak_http(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(10)

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-nonsense\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UserError) as caught:
            Engine(f"unix://{path}", environ={}).info()
        thread.join(10)
    assert caught.value.code == "engine-unreachable"


def test_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(UserError, match=r"^mine$"), explained("asking", LOCAL):
        raise UserError("mine", "mine")


def test_defects_are_not_dressed_up() -> None:
    with pytest.raises(ZeroDivisionError), explained("asking", LOCAL):
        1 / 0  # noqa: B018
