"""An engine over TCP with TLS, as ``DOCKER_TLS_VERIFY`` and contexts ask for it."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from netpolicy.errors import UserError
from sidecars.engine import Engine
from sidecars.engine.streams import STDOUT

VERSION = {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.0"}


class Certificates:
    """A certificate authority with one server (127.0.0.1) and one client, in the files that Docker expects."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ca = self._signed(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
        (self.folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        self._issue(
            "server-cert.pem", "server-key.pem", x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        )
        self._issue("cert.pem", "key.pem", x509.SubjectAlternativeName([x509.DNSName("client")]))

    def _issue(self, certificate: str, key: str, extension: x509.ExtensionType) -> None:
        own = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, certificate)])
        made = self._signed(name, own.public_key(), extension)
        (self.folder / certificate).write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (self.folder / key).write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )


@contextmanager
def served(certificates: Certificates, answer: Callable[[ssl.SSLSocket, bytes], bool]) -> Iterator[str]:
    """A server that wants a client's certificate; `answer` gets each request and says whether more may follow."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.folder / "server-cert.pem", certificates.folder / "server-key.pem")
    context.load_verify_locations(certificates.folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk(plain: socket.socket) -> None:
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    while (request := connection.recv(65536)) and answer(connection, request):
                        pass
            except OSError:
                plain.close()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def body(document: object) -> bytes:
    data = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data


def engine_like(connection: ssl.SSLSocket, request: bytes) -> bool:
    line = request.splitlines()[0]
    if b"/version" in line:
        connection.sendall(body(VERSION))
    elif b"/info" in line:
        connection.sendall(body({"ServerVersion": "20.10.0", "Name": "far"}))
    elif line.startswith(b"GET") and b"/exec/" in line:
        connection.sendall(body({"ExitCode": 0}))
    elif b"/containers/box/exec" in line:
        connection.sendall(body({"Id": "e"}))
    else:
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n")
        received = b""
        # The end is the alert; the output follows it.
        while part := connection.recv(65536):
            received += part
        said = received.upper()
        connection.sendall(struct.pack(">BxxxL", 1, len(said)) + said)
        return False
    return True


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path, "right")


def environ(folder: Path, url: str) -> dict[str, str]:
    return {"DOCKER_HOST": url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}


def test_both_sides_show_their_certificates(certificates: Certificates) -> None:
    with (
        served(certificates, engine_like) as url,
        Engine(environ=environ(certificates.folder, url)) as engine,
    ):
        assert engine.info().name == "far"


def test_a_command_reads_the_end_of_its_input_and_its_output_arrives(certificates: Certificates) -> None:
    with (
        served(certificates, engine_like) as url,
        Engine(environ=environ(certificates.folder, url)) as engine,
    ):
        assert engine.containers.execs.run("box", ["cat"], stdin=b"abc" * 50000).stdout == b"ABC" * 50000
        with engine.containers.execs.open("box", ["cat"]) as stream:
            stream.write(b"x")
            stream.end_input()
            assert list(stream.frames()) == [(STDOUT, b"X")]


def test_a_server_of_another_authority_is_refused(certificates: Certificates, tmp_path: Path) -> None:
    other = Certificates(tmp_path, "other")
    with (
        served(certificates, engine_like) as url,
        Engine(environ=environ(other.folder, url)) as engine,
        pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED") as caught,
    ):
        engine.info()
    assert caught.value.code == "engine-unreachable"


def test_without_verification_any_server_will_do(certificates: Certificates, tmp_path: Path) -> None:
    other = Certificates(tmp_path, "other")
    for name in ("cert.pem", "key.pem"):
        (other.folder / name).write_bytes((certificates.folder / name).read_bytes())
    with served(certificates, engine_like) as url:
        settings = environ(other.folder, url)
        del settings["DOCKER_TLS_VERIFY"]
        with Engine(environ=settings) as engine:
            assert engine.info().name == "far"
