"""The certificates that this host trusts beyond the public ones, so that images work behind a proxy that inspects TLS.

They are taken from where administrators put them (Debian, Ubuntu; Fedora, RHEL; SUSE; Arch) and from files named in the
configuration.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from netpolicy.errors import Exit, UserError

#: Folders for an administrator's own certificates; the public ones are never in them.
FOLDERS = (
    Path("/usr/local/share/ca-certificates"),
    Path("/etc/pki/ca-trust/source/anchors"),
    Path("/etc/pki/trust/anchors"),
    Path("/etc/ca-certificates/trust-source/anchors"),
)
_SUFFIXES = (".crt", ".pem", ".cer")
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\s+(.+?)\s+-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate. Equal ones found in several files are one."""

    name: str
    """A file name without suffix, from the contents, so that the order of folders does not matter."""
    pem: bytes


def host_certificates(extra: Sequence[Path] = (), folders: Iterable[Path] = FOLDERS) -> tuple[Certificate, ...]:
    """The certificates of this host and of the `extra` files (PEM; each may hold several).

    Raises:
        UserError: ``bad-certificate``: a file of `extra` cannot be read or holds no certificate. What lies in the host's folders and is
            not a PEM certificate is passed over, as the system itself does.
    """
    found: dict[str, Certificate] = {}
    for folder in folders:
        if folder.is_dir():
            for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file()):
                found |= {c.name: c for c in _split(_bytes(path))}
    for path in extra:
        own = _split(_required(path))
        if not own:
            raise _bad(path, "holds no PEM certificate")
        found |= {c.name: c for c in own}
    return tuple(found[name] for name in sorted(found))


def _split(data: bytes) -> list[Certificate]:
    made = []
    for block in _BLOCK.findall(data):
        try:
            der = base64.b64decode(b"".join(block.split()), validate=True)
        except binascii.Error:
            continue
        text = base64.encodebytes(der).replace(b"\n", b"")
        lines = b"\n".join(text[i : i + 64] for i in range(0, len(text), 64))
        pem = b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"
        made.append(Certificate(f"host-{hashlib.sha256(der).hexdigest()[:16]}", pem))
    return made


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        # A certificate that this user may not read is no certificate of theirs.
        return b""


def _required(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror}") from error


def _bad(path: Path, what: str) -> UserError:
    return UserError(
        "bad-certificate",
        f"the certificate file {path} {what}",
        hint="Name a file with certificates in PEM form (-----BEGIN CERTIFICATE-----).",
        exit_status=Exit.BAD_INPUT,
    )
