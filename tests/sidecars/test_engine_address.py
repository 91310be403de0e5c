from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from netpolicy.errors import UserError
from sidecars.engine.address import DEFAULT, find


def store(home: Path, name: str, host: str, *, tls: bool = False, current: bool = False) -> None:
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = home / ".docker/contexts/meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host}}}))
    if tls:
        folder = home / ".docker/contexts/tls" / key / "docker"
        folder.mkdir(parents=True)
        (folder / "ca.pem").write_text("x")
    if current:
        (home / ".docker/config.json").write_text(json.dumps({"currentContext": name}))


def test_without_anything_it_is_the_local_socket(tmp_path: Path) -> None:
    found = find(None, {"HOME": str(tmp_path)})
    assert (found.url, found.origin, found.socket) == (DEFAULT, "default", Path("/var/run/docker.sock"))


def test_order_is_argument_then_docker_host_then_docker_context_then_current_context(tmp_path: Path) -> None:
    store(tmp_path, "near", "unix:///near.sock", current=True)
    store(tmp_path, "far", "ssh://me@far", tls=True)
    environ = {"HOME": str(tmp_path)}
    assert find(None, environ).url == "unix:///near.sock"
    environ["DOCKER_CONTEXT"] = "far"
    found = find(None, environ)
    assert (found.url, found.origin, found.socket) == ("ssh://me@far", "context far", None)
    assert found.certificates is not None
    assert found.certificates.verify
    environ["DOCKER_HOST"] = "tcp://h:2375"
    assert find(None, environ).url == "tcp://h:2375"
    assert find("unix:///given", environ).url == "unix:///given"


def test_context_default_is_the_local_socket(tmp_path: Path) -> None:
    store(tmp_path, "near", "unix:///near.sock", current=True)
    assert find(None, {"HOME": str(tmp_path), "DOCKER_CONTEXT": "default"}).url == DEFAULT


def test_certificates_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    environ = {"DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    certificates = find(None, environ).certificates
    assert certificates is not None
    assert certificates.verify
    assert certificates.file("ca.pem") == tmp_path / "ca.pem"
    assert certificates.file("key.pem") is None


@pytest.mark.parametrize(
    ("environ", "code", "named"),
    [
        ({"DOCKER_HOST": "nonsense"}, "bad-engine-address", "nonsense"),
        ({"DOCKER_HOST": "unix://"}, "bad-engine-address", "unix://"),
        ({"DOCKER_CONTEXT": "gone"}, "context-missing", "gone"),
    ],
)
def test_a_bad_address_names_what_was_given(tmp_path: Path, environ: dict[str, str], code: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        find(None, {"HOME": str(tmp_path), **environ})
    assert caught.value.code == code
    assert named in caught.value.message
    assert caught.value.hint


def test_a_broken_configuration_names_its_file(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json") as caught:
        find(None, {"HOME": str(tmp_path)})
    assert caught.value.code == "bad-docker-config"
