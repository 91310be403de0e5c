"""Connections to an engine: plain sockets for every kind of address, and the SDK's client on top of them.

The SDK's own ssh transport needs paramiko, its raw streams lose what arrives together with the response's head, and a call that
waits cannot be cut off. So all its connections come from here: ssh is the user's own ``ssh`` program with one end of a socket
pair as its standard input and output (as the Docker client does it), `Client.abort` ends what waits, and raw streams
(`sidecars.engine.streams`) open their socket here as well.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from weakref import WeakSet

import docker
import urllib3.connection
import urllib3.connectionpool
from docker.transport.basehttpadapter import BaseHTTPAdapter

from netpolicy.errors import Exit, UserError
from sidecars.engine.address import Address
from sidecars.engine.errors import LinkFailed

#: The newest API version whose answers this code was written for; an older engine is spoken to in its own.
NEWEST = (1, 51)
CONNECT_SECONDS = 10.0


def connect(address: Address, seconds: float = CONNECT_SECONDS) -> socket.socket:
    """Open one connection. It is blocking, without a timeout.

    Raises:
        OSError: nobody answers (the caller names the engine).
        UserError: ``program-missing`` where ssh is needed and absent.
    """
    parts = urlsplit(address.url)
    if parts.scheme == "ssh":
        return _Ssh.open(address.url)
    if parts.scheme == "unix":
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.settimeout(seconds)
        try:
            plain.connect(str(address.socket))
        except OSError:
            plain.close()
            raise
        plain.settimeout(None)
        return plain
    secure = address.certificates is not None or parts.scheme == "https"
    plain = socket.create_connection((parts.hostname or "", parts.port or (2376 if secure else 2375)), seconds)
    plain.settimeout(None)
    return _tls_context(address).wrap_socket(plain, server_hostname=parts.hostname) if secure else plain


def _tls_context(address: Address) -> ssl.SSLContext:
    files = address.certificates
    context = ssl.create_default_context(cafile=_text(files.file("ca.pem")) if files else None)
    if files and not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files and (certificate := files.file("cert.pem")):
        context.load_cert_chain(certificate, files.file("key.pem"))
    return context


def client(address: Address, seconds: float) -> Client:
    """The SDK's client for an address, with the API version agreed upon.

    Raises:
        docker.errors.DockerException, requests.exceptions.RequestException, OSError: nobody answers.
    """
    with closing(Client(address, "1.24", seconds)) as first:
        found = first.version(api_version=False)
    newest, oldest = (_version(found.get(key)) for key in ("ApiVersion", "MinAPIVersion"))
    agreed = max(min(newest, NEWEST), oldest)
    return Client(address, f"{agreed[0]}.{agreed[1]}", seconds)


class Client(docker.APIClient):
    """The SDK's client over connections of our own. With a version given, making one does not talk to the engine."""

    def __init__(self, address: Address, version: str, seconds: float) -> None:
        # Any unix address makes the SDK prepare a session for "http+docker://"; our adapter takes that over.
        super().__init__(base_url="unix:///engine", version=version, timeout=int(seconds))
        self._connections = _Adapter(address, seconds)
        self.mount("http+docker://", self._connections)

    def abort(self) -> None:
        """Cut all connections under whoever waits on them in another thread; they see the end of the stream."""
        for connection in list(self._connections.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _version(text: object) -> tuple[int, int]:
    major, _, minor = str(text or "1.24").partition(".")
    return int(major), int(minor or 0)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


class _Ssh(socket.socket):
    """Our end of the socket pair; keeps the ssh process and its last words."""

    process: subprocess.Popen[bytes]
    words: IO[bytes]
    said = ""

    @classmethod
    def open(cls, url: str) -> _Ssh:
        parts = urlsplit(url)
        program = shutil.which("ssh")
        if program is None:
            raise UserError(
                "program-missing", f"the engine {url} is reached by ssh, which is not installed",
                hint="Install the package openssh-client.", exit_status=Exit.MISSING,
            )  # fmt: skip
        remote = "docker system dial-stdio"
        if parts.path.strip("/"):
            remote = f"docker --host unix://{parts.path} system dial-stdio"
        argv = [program, "-T", "-o", "ConnectTimeout=30", *(["-l", parts.username] if parts.username else [])]
        argv += [*(["-p", str(parts.port)] if parts.port else []), "--", parts.hostname or "", remote]
        ours, theirs = socket.socketpair()
        words = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            end = theirs.fileno()
            # A session of its own: Ctrl-C in our terminal must not cut the connection under our clean-up.
            process = subprocess.Popen(argv, stdin=end, stdout=end, stderr=words, start_new_session=True)
        made = cls(fileno=ours.detach())
        made.process, made.words = process, words
        return made

    def last_words(self) -> str:
        """What ssh printed on standard error, once it has ended (it is given a moment)."""
        if not self.words.closed:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
            self.said = os.pread(self.words.fileno(), 4000, 0).decode(errors="replace").strip()
        return self.said

    def _real_close(self, *args: Any) -> None:
        # Not `close`: files made of the socket keep it open past that (ssl.SSLSocket hooks in here as well).
        super()._real_close(*args)  # type: ignore[misc]  # absent from typeshed
        self.last_words()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.words.close()


class _Connection(urllib3.connection.HTTPConnection):
    def __init__(self, pool: _Pool) -> None:
        super().__init__("localhost", timeout=pool.seconds)
        self._pool = pool

    def connect(self) -> None:
        self.sock = connect(self._pool.address)
        self.sock.settimeout(self._pool.seconds)
        self._pool.open.add(self.sock)

    def getresponse(self) -> Any:
        used = self.sock
        try:
            return super().getresponse()
        except (OSError, urllib3.exceptions.HTTPError) as error:
            # An ssh that could not log in ends, and says why only on its standard error.
            if isinstance(used, _Ssh) and (words := used.last_words()):
                raise LinkFailed(words) from error
            raise


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, address: Address, seconds: float, opened: WeakSet[socket.socket]) -> None:
        super().__init__("localhost", maxsize=8)
        self.address, self.seconds, self.open = address, seconds, opened

    def _new_conn(self) -> Any:
        return _Connection(self)


class _Adapter(BaseHTTPAdapter):
    def __init__(self, address: Address, seconds: float) -> None:
        super().__init__()
        self.open: WeakSet[socket.socket] = WeakSet()
        self._pool = _Pool(address, seconds, self.open)

    def get_connection(self, url: Any, proxies: Any = None) -> Any:
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> Any:
        # Proxies are for the engine's own traffic, never for the way to it.
        return request.path_url

    def close(self) -> None:
        super().close()
        self._pool.close()
