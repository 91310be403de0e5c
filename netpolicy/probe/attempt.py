"""Try a connection for real and say what happened: the program that a probe is.

It is imported as a module here, and fed to ``python3 -`` inside containers which have nothing of ours (`netpolicy.probe.source`);
that is why it and the modules it imports use the standard library only, and of that what is quick to import: most of a probe's time
was Python's start. Targets: see `target`. Proxy variables are ignored: a probe is direct.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import queue
import re
import socket
import ssl
import struct
import sys
import threading
from time import monotonic  # not netpolicy.clock: this file runs where there is no kit
from typing import NamedTuple, NoReturn  # and not dataclasses, which import half of the library

from netpolicy.probe.resolving import DNS_DENIED, DNS_FAILED, Unresolved, resolve
from netpolicy.probe.target import Target, parse

__all__ = ["DNS_DENIED", "DNS_FAILED", "ProbeResult", "Target", "main", "parse", "probe", "probe_all"]

#: Something at the far end answered (for TCP: the connection was established).
REACHED = "reached"
#: Connected, but the conversation failed before an answer (a TLS alert, a reset after the handshake).
BROKEN = "broken"
#: A reset, or an ICMP message that says "prohibited" or "port unreachable".
REFUSED = "refused"
TIMEOUT = "timeout"
#: No route, or nobody at the address.
UNREACHABLE = "unreachable"
#: This process may not even try (no socket of this kind).
NOT_PERMITTED = "not-permitted"

#: The name by which OpenSSL finds a certificate in a directory (openssl-rehash(1)).
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
#: When several addresses of a name fail differently, the most telling outcome is reported.
_TELLING = (REACHED, BROKEN, REFUSED, TIMEOUT, UNREACHABLE, NOT_PERMITTED)


class ProbeResult(NamedTuple):
    """What happened."""

    target: str
    outcome: str
    milliseconds: float
    address: str | None = None
    """The address that the outcome is about."""
    detail: str = ""
    """For people; for a denied name the resolver's own text."""

    @property
    def reached(self) -> bool:
        """Whether traffic got to the far end and back."""
        return self.outcome in (REACHED, BROKEN)


def probe(target: str | Target, seconds: float = 5.0, *, nonce: str | None = None) -> ProbeResult:
    """Try one target; ends within about `seconds`. Never raises for what the network does.

    Args:
        target: See the module's grammar. Raises ValueError where it is malformed.
        seconds: Deadline for everything: resolution, connection and answer.
        nonce: Sent in the first bytes (tcp without a scheme, udp, icmp), so that a receiver can recognise the probe.
    """
    wanted = parse(target) if isinstance(target, str) else target
    begin = monotonic()
    deadline = begin + seconds
    try:
        addresses = resolve(wanted.host, deadline)
    except Unresolved as failure:
        outcome, address, detail = failure.outcome, None, failure.detail
    else:
        outcome, address, detail = _try_all(wanted, addresses, deadline, nonce)
    return ProbeResult(wanted.text, outcome, round((monotonic() - begin) * 1000, 1), address, detail)


def probe_all(targets: list[str], seconds: float = 5.0, *, nonce: str | None = None) -> list[ProbeResult]:
    """Try several targets at once; results in the order given. See `probe`."""
    wanted = [parse(t) for t in targets]
    if any(one.scheme == "https" for one in wanted):
        threading.Thread(target=_trust.context, daemon=True).start()  # while the names are looked up
    found: dict[int, ProbeResult] = {}

    def one(place: int) -> None:
        found[place] = probe(wanted[place], seconds, nonce=nonce)

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[place] for place in range(len(wanted))]


_Outcome = tuple[str, str]


def _try_all(target: Target, addresses: list[str], deadline: float, nonce: str | None) -> tuple[str, str, str]:
    """All addresses at once: a dead family must not use up the time of a working one."""
    attempt = {"tcp": _tcp, "udp": _udp, "icmp": _icmp}[target.protocol]
    outcomes: queue.SimpleQueue[tuple[str, str, str] | None] = queue.SimpleQueue()

    def one(address: str) -> None:
        found = None
        try:
            outcome, detail = attempt(target, address, deadline, nonce)
            found = (outcome, address, detail)
        finally:
            outcomes.put(found)

    for address in addresses:
        threading.Thread(target=one, args=(address,), daemon=True).start()
    worst: tuple[str, str, str] | None = None
    for _ in addresses:
        found = outcomes.get()
        if found is None:
            raise RuntimeError(f"a defect in the probe of {target.text}; the thread has told which")
        if found[0] == REACHED:
            return found
        if worst is None or _TELLING.index(found[0]) < _TELLING.index(worst[0]):
            worst = found
    assert worst is not None
    return worst


class _Trust:
    """The authorities that this machine trusts. Read once, where all of them are in one file: that takes longer than all else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """For connections to servers whose names are checked."""
        with self._lock:
            if self._context is None:
                # Of a directory, OpenSSL reads only what it needs. A file that the user names stands for itself.
                found = ssl.get_default_verify_paths()
                hashed = found.capath is not None and any(
                    _HASHED.fullmatch(one.name) for one in os.scandir(found.capath)
                )
                whole = not hashed or found.openssl_cafile_env in os.environ
                self._context = ssl.create_default_context(capath=None if whole else found.capath)
            return self._context


_trust = _Trust()


def _left(deadline: float) -> float:
    return max(0.05, deadline - monotonic())


def _failure(error: OSError) -> _Outcome:
    said = error.strerror or str(error)
    if isinstance(error, TimeoutError) or error.errno in (errno.ETIMEDOUT, errno.EAGAIN):
        return TIMEOUT, "no answer in time"
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        # A reset before the handshake is ECONNREFUSED; these two come only after it, however quickly.
        return BROKEN, "connected, then reset"
    if error.errno in (errno.ECONNREFUSED, errno.EACCES):
        return REFUSED, said
    if error.errno == errno.EPERM:
        return NOT_PERMITTED, said
    return UNREACHABLE, said


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _tcp(target: Target, address: str, deadline: float, nonce: str | None) -> _Outcome:
    try:
        sock = socket.create_connection((address, target.port), _left(deadline))
    except OSError as error:
        return _failure(error)
    with sock:
        try:
            if target.scheme:
                return REACHED, _http(target, sock, deadline)
            if nonce is not None:
                sock.sendall(f"{nonce}\n".encode())
        except ssl.SSLCertVerificationError as error:
            return REACHED, f"the certificate is not trusted: {error.verify_message}"
        except OSError as error:
            return BROKEN, f"connected, then: {error.strerror or error}"
    return REACHED, "connected"


def _http(target: Target, sock: socket.socket, deadline: float) -> str:
    sock.settimeout(_left(deadline))
    stream = sock
    if target.scheme == "https":
        stream = _trust.context().wrap_socket(sock, server_hostname=target.host)
    with stream:
        host = f"[{target.host}]" if ":" in target.host else target.host
        request = (
            f"GET {target.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: netpolicy-probe\r\nConnection: close\r\n\r\n"
        )
        stream.sendall(request.encode())
        stream.settimeout(_left(deadline))
        answer = b""
        while b"\n" not in answer and len(answer) < 4096 and (part := stream.recv(1024)):
            answer += part
    if not answer:
        raise OSError(errno.ECONNRESET, "the server closed the connection without an answer")
    return answer.split(b"\n", 1)[0].decode(errors="replace").strip()


def _udp(target: Target, address: str, deadline: float, nonce: str | None) -> _Outcome:
    payload = f"{nonce or 'netpolicy-probe ' + os.urandom(8).hex()}\n".encode()
    if target.port == 53:  # a name server answers questions only: the name servers of the root, or of the nonce
        label = (nonce or "").encode()[:63]
        name = bytes([len(label)]) + label + b"\0" if label else b"\0"
        payload = os.urandom(2) + b"\x01\x00\0\1\0\0\0\0\0\0" + name + b"\0\2\0\1"
    return _datagram(socket.SOCK_DGRAM, 0, address, target.port, payload, deadline)


def _icmp(_target: Target, address: str, deadline: float, nonce: str | None) -> _Outcome:
    v6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    # Datagram ICMP sockets need no capability where net.ipv4.ping_group_range admits the group; the kernel fills the checksum.
    packet = bytes([128 if v6 else 8, 0, 0, 0, 0, 0, 0, 1]) + (nonce or os.urandom(8).hex()).encode()
    return _datagram(socket.SOCK_DGRAM, protocol, address, 0, packet, deadline)


def _datagram(
    kind: socket.SocketKind, protocol: int, address: str, port: int, payload: bytes, deadline: float
) -> _Outcome:
    family = _family(address)
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        return NOT_PERMITTED, error.strerror or str(error)
    with sock:
        # IP_RECVERR (11) and IPV6_RECVERR (25) keep the ICMP message, which tells a filter from a missing host.
        sock.setsockopt(*((socket.IPPROTO_IPV6, 25) if family == socket.AF_INET6 else (socket.IPPROTO_IP, 11)), 1)
        try:
            sock.connect((address, port))
            while True:
                sock.send(payload)
                # Asked again each second: one lost datagram is not a verdict.
                sock.settimeout(min(1.0, _left(deadline)))
                try:
                    sock.recv(4096)
                except TimeoutError:
                    if monotonic() >= deadline:
                        return TIMEOUT, "no answer in time"
                    continue
                return REACHED, "answered"
        except OSError as error:
            return _refusal(sock) or _failure(error)


def _refusal(sock: socket.socket) -> _Outcome | None:
    """Whether the error queue holds an ICMP message from a filter or from a host without that port."""
    try:
        _, messages, _, _ = sock.recvmsg(2048, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except OSError:
        return None
    for _, _, data in messages:
        _, origin, kind, code = struct.unpack_from("IBBB", data)
        if (origin == 2 and kind == 3 and code in (2, 3, 9, 10, 13)) or (origin == 3 and kind == 1 and code in (1, 4)):
            return REFUSED, f"ICMP type {kind} code {code}"
    return None


def main(argv: list[str] | None = None) -> int:
    """Probe the targets on the command line; one JSON object a line. Returns 0 if all were reached, 1 if not, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="probe", description="try connections for real")
    parser.add_argument("targets", nargs="+", metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--nonce", help="sent along, so that a receiver can recognise the probe")
    parser.add_argument("--json", action="store_true", help="(always)")
    args = parser.parse_args(argv)
    try:
        results = probe_all(args.targets, args.seconds, nonce=args.nonce)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for result in results:
        sys.stdout.write(json.dumps(result._asdict()) + "\n")
    sys.stdout.flush()
    return 0 if all(r.reached for r in results) else 1


def leave() -> NoReturn:
    """Run `main` as a program. A resolver thread may still be waiting for its answer then; the interpreter need not."""
    os._exit(main())
