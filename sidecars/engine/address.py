"""Which Docker engine is meant: an explicit address, DOCKER_HOST, DOCKER_CONTEXT, the current context, or the local socket.

The order is the Docker client's own. Contexts are read here and not with the SDK, which looks for them relative to the working
directory when there is no ``config.json`` beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netpolicy.errors import Exit, UserError

DEFAULT = "unix:///var/run/docker.sock"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files for a TLS connection."""

    directory: Path
    verify: bool

    def file(self, name: str) -> Path | None:
        """``ca.pem``, ``cert.pem`` or ``key.pem``, where it exists."""
        path = self.directory / name
        return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class Address:
    """One engine."""

    url: str
    """``unix:///path``, ``tcp://host:port`` or ``ssh://[user@]host[:port]``."""
    origin: str
    """Where the address was named, for messages: ``DOCKER_HOST``, ``context NAME``, ``default``, ..."""
    certificates: Certificates | None = None

    @property
    def socket(self) -> Path | None:
        """The path of a local engine's socket, None for a remote one."""
        return Path(self.url.removeprefix("unix://")) if self.url.startswith("unix://") else None

    def __str__(self) -> str:
        return self.url


def find(host: str | None, environ: Mapping[str, str]) -> Address:
    """Resolve the engine's address.

    Raises:
        UserError: ``bad-engine-address``, ``context-missing``.
    """
    if host:
        return _checked(Address(host, "given", _environment_certificates(environ)))
    if named := environ.get("DOCKER_HOST"):
        return _checked(Address(named, "DOCKER_HOST", _environment_certificates(environ)))
    folder = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or Path.home()) / ".docker")
    name = environ.get("DOCKER_CONTEXT") or _current_context(folder)
    if name in ("", "default"):
        return Address(DEFAULT, "default")
    return _checked(_context(folder, name))


def _checked(address: Address) -> Address:
    scheme, separator, rest = address.url.partition("://")
    if separator and rest and scheme in ("unix", "tcp", "ssh", "http", "https"):
        return address
    raise UserError(
        "bad-engine-address",
        f"{address.url!r} ({address.origin}) is not the address of a Docker engine",
        hint="Use unix:///path/to/docker.sock, tcp://host:port or ssh://user@host.",
        exit_status=Exit.BAD_INPUT,
    )


def _environment_certificates(environ: Mapping[str, str]) -> Certificates | None:
    # As for the Docker client, any value switches verification on, also "0".
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    folder = environ.get("DOCKER_CERT_PATH")
    if not verify and not folder:
        return None
    home = Path(environ.get("HOME") or Path.home())
    return Certificates(Path(folder) if folder else home / ".docker", verify)


def _current_context(folder: Path) -> str:
    try:
        document = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        return "default"
    except (OSError, ValueError) as error:
        raise UserError(
            "bad-docker-config", f"cannot read {folder / 'config.json'}: {error}", exit_status=Exit.BAD_INPUT
        ) from error
    return str(document.get("currentContext") or "default") if isinstance(document, dict) else "default"


def _context(folder: Path, name: str) -> Address:
    # The Docker client's store: one folder a context, named by the hash of its name.
    key = hashlib.sha256(name.encode()).hexdigest()
    file = folder / "contexts" / "meta" / key / "meta.json"
    try:
        endpoint = json.loads(file.read_text())["Endpoints"]["docker"]
        url = str(endpoint["Host"])
    except FileNotFoundError as error:
        raise UserError(
            "context-missing",
            f"there is no Docker context named {name!r} in {folder}",
            hint="'docker context ls' lists them; DOCKER_CONTEXT or 'docker context use' chooses one.",
            exit_status=Exit.MISSING,
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "bad-docker-config", f"cannot read the Docker context {name!r} from {file}: {error!r}"
        ) from error
    tls = folder / "contexts" / "tls" / key / "docker"
    certificates = Certificates(tls, not endpoint.get("SkipTLSVerify", False)) if tls.is_dir() else None
    return Address(url, f"context {name}", certificates)
