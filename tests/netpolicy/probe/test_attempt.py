"""Probes against servers on loopback: each outcome is provoked once."""

from __future__ import annotations

import datetime
import hashlib
import json
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from netpolicy.cli import main
from netpolicy.probe import command, parse, probe, source
from netpolicy.probe import results as read_results
from netpolicy.probe.resolving import extended_error


@contextmanager
def serving(server: socketserver.TCPServer | socketserver.UDPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Quiet(socketserver.BaseRequestHandler):
    """Accepts and says nothing."""


class Hangup(socketserver.BaseRequestHandler):
    """Accepts and resets."""

    def handle(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Web(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n")


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data, self.client_address)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_tcp_reached_and_refused() -> None:
    with serving(socketserver.TCPServer(("127.0.0.1", 0), Quiet)) as port:
        assert probe(f"127.0.0.1:{port}").outcome == "reached"
    refused = probe(f"127.0.0.1:{free_port()}")
    assert (refused.outcome, refused.address) == ("refused", "127.0.0.1")
    assert refused.milliseconds < 1000


def test_udp_reached_refused_and_silent() -> None:
    with serving(socketserver.UDPServer(("127.0.0.1", 0), Echo)) as port:
        assert probe(f"127.0.0.1:{port}/udp").outcome == "reached"
    assert probe(f"[::1]:{free_port()}/udp").outcome == "refused"
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        result = probe(f"127.0.0.1:{silent.getsockname()[1]}/udp", 0.2)
    assert (result.outcome, result.detail) == ("timeout", "no answer in time")


def test_a_silent_tcp_peer_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = probe(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.2)
    assert result.outcome == "broken"
    assert result.milliseconds < 2000


def test_http_reports_the_status_line() -> None:
    with serving(socketserver.TCPServer(("127.0.0.1", 0), Web)) as port:
        result = probe(f"http://127.0.0.1:{port}/zen")
    assert (result.outcome, result.detail) == ("reached", "HTTP/1.1 204 No Content")


@contextmanager
def serving_tls(certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    class Tls(Web):
        def setup(self) -> None:
            try:
                self.request = context.wrap_socket(self.request, server_side=True)
            except ssl.SSLError:
                self.request.close()  # the probe hangs up once it has seen the certificate
                self.request = socket.socket()
            super().setup()

        def handle(self) -> None:
            if isinstance(self.request, ssl.SSLSocket):
                super().handle()

        def finish(self) -> None:
            self.request.close()

    with serving(socketserver.TCPServer(("127.0.0.1", 0), Tls)) as port:
        yield port


def test_https_with_a_certificate_nobody_trusts_counts_as_reached(tmp_path: Path) -> None:
    with serving_tls(self_signed(tmp_path)) as port:
        result = probe(f"https://localhost:{port}/")
    assert result.outcome == "reached"
    assert result.detail.startswith("the certificate is not trusted: ")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_the_authorities_are_those_of_a_file_or_of_a_directory(tmp_path: Path, variable: str) -> None:
    certificate = self_signed(tmp_path)
    # X509_NAME_hash(3): the name without its outer header, in lower case as UTF-8.
    name = bytes([0x31, 18, 0x30, 16, 6, 3, 0x55, 4, 3, 0x0C, 9]) + b"localhost"
    number = int.from_bytes(hashlib.sha1(name, usedforsecurity=False).digest()[:4], "little")
    (directory := tmp_path / "trusted").mkdir()
    (directory / f"{number:08x}.0").symlink_to(certificate)
    place = certificate if variable == "SSL_CERT_FILE" else directory
    with serving_tls(certificate) as port:
        done = subprocess.run(
            [*command(), f"https://localhost:{port}/"], env={variable: str(place)},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert [r.detail for r in read_results(done.stdout)] == ["HTTP/1.1 204 No Content"], done.stderr


@pytest.mark.parametrize("target", ["https://127.0.0.1:{}/", "http://127.0.0.1:{}/"])
def test_a_server_that_resets_after_accepting_is_broken_not_refused(target: str) -> None:
    with serving(socketserver.TCPServer(("127.0.0.1", 0), Hangup)) as port:
        result = probe(target.format(port))
    assert result.outcome == "broken"
    assert result.reached  # the connection was established: for a blocked target that is a breach


def self_signed(directory: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_the_extended_error_of_a_denial_is_read_from_the_answer() -> None:
    text = b"denied by policy; add blocked.example"
    option = struct.pack("!HHH", 15, len(text) + 2, 15) + text
    answer = (
        struct.pack("!6H", 7, 0x8183, 1, 0, 1, 1)
        + b"\7blocked\7example\0\0\1\0\1"
        + b"\xc0\x0c"
        + struct.pack("!HHIH", 6, 1, 30, 2)
        + b"\0\0"
        + b"\0"
        + struct.pack("!HHIH", 41, 1232, 0, len(option))
        + option
    )
    assert extended_error(answer) == (15, text.decode())


@given(st.text(max_size=40))
def test_parsing_is_total(text: str) -> None:
    try:
        target = parse(text)
    except ValueError as error:
        assert str(error)
    else:
        assert target.host
        assert (target.protocol == "icmp") == (target.port == 0)


@pytest.mark.parametrize(
    ("text", "host", "port", "protocol"),
    [
        ("example.com", "example.com", 443, "tcp"),
        ("example.com:22", "example.com", 22, "tcp"),
        ("example.com:53/udp", "example.com", 53, "udp"),
        ("example.com/icmp", "example.com", 0, "icmp"),
        ("2001:db8::1", "2001:db8::1", 443, "tcp"),
        ("[2001:db8::1]:80", "2001:db8::1", 80, "tcp"),
        ("https://example.com/zen", "example.com", 443, "tcp"),
        ("http://[2001:db8::1]:81/?q=1", "2001:db8::1", 81, "tcp"),
    ],
)
def test_the_grammar(text: str, host: str, port: int, protocol: str) -> None:
    target = parse(text)
    assert (target.host, target.port, target.protocol) == (host, port, protocol)


@pytest.mark.parametrize(
    "bad", ["", ":443", "a:0", "a:65536", "a:x", "a/sctp", "a:1/icmp", "[::1", "ftp://a/", "https:///x", "a b"]
)
def test_bad_targets_are_bad_input(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--json", bad]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "bad-target"


def test_the_source_runs_alone_on_standard_input() -> None:
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-I", "-", f"127.0.0.1:{port}", f"127.0.0.1:{port}/udp"],
        input=source(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert [r.outcome for r in read_results(done.stdout)] == ["refused", "refused"]


def test_the_command_line_prints_one_line_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(socketserver.TCPServer(("127.0.0.1", 0), Quiet)) as port:
        assert main(["probe", f"127.0.0.1:{port}"]) == 0
    assert "reached after" in capsys.readouterr().out


def test_the_program_starts_with_nothing_of_ours_but_itself() -> None:
    """Most of a probe's time would be the import of the packages around it."""
    with serving(socketserver.TCPServer(("127.0.0.1", 0), Quiet)) as port:
        words = command()
        words[1:1] = ["-X", "importtime"]
        done = subprocess.run([*words, f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "reached"
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {name for name in loaded if name.startswith("netpolicy")} == {
        "netpolicy.probe.attempt",
        "netpolicy.probe.resolving",
        "netpolicy.probe.target",
    }
    assert not loaded & {"dataclasses", "logging", "concurrent.futures"}
