from __future__ import annotations

import base64
from pathlib import Path

import pytest

from netpolicy.errors import UserError
from sidecars.images.certificates import host_certificates


def pem(content: bytes, *, width: int = 64) -> bytes:
    text = base64.b64encode(content)
    lines = b"\n".join(text[i : i + width] for i in range(0, len(text), width))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"


def test_each_certificate_is_one_file_however_they_are_kept(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    (a / "sub").mkdir(parents=True)
    b.mkdir()
    (a / "sub" / "bundle.crt").write_bytes(b"# two of them\n" + pem(b"one" * 40) + pem(b"two" * 40))
    (b / "again.pem").write_bytes(pem(b"two" * 40, width=76).replace(b"\n", b"\r\n"))
    (b / "der.cer").write_bytes(b"\x30\x82")
    (b / "notes.txt").write_bytes(pem(b"not looked at"))
    found = host_certificates(folders=(a, b, tmp_path / "none"))
    assert sorted(c.pem for c in found) == sorted([pem(b"one" * 40), pem(b"two" * 40)])
    assert len({c.name for c in found}) == 2


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    for folder, names in (("a", "xy"), ("b", "yx")):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, (b"one", b"two"), strict=True):
            (tmp_path / folder / f"{name}.crt").write_bytes(pem(content))
    assert host_certificates(folders=[tmp_path / "a"]) == host_certificates(folders=[tmp_path / "b"])


def test_named_files_are_added(tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_bytes(pem(b"own"))
    assert [c.pem for c in host_certificates([tmp_path / "own.pem"], folders=())] == [pem(b"own")]


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n"])
def test_a_named_file_without_certificate_is_an_error_that_names_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "own.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"own\.pem") as caught:
        host_certificates([path], folders=())
    assert caught.value.code == "bad-certificate"


def test_private_keys_never_go_in(tmp_path: Path) -> None:
    key = b"-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n"
    (tmp_path / "both.pem").write_bytes(key + pem(b"own"))
    (found,) = host_certificates([tmp_path / "both.pem"], folders=())
    assert b"PRIVATE" not in found.pem
