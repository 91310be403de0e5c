"""From a name to addresses by the system's resolver, and where that says no, why (Extended DNS Errors, RFC 8914).

Part of the probe program (`netpolicy.probe.source`): standard library only.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import threading
from ipaddress import ip_address
from time import monotonic  # not netpolicy.clock: this file runs where there is no kit

#: The resolver says that the name is filtered (Extended DNS Error 15 to 18).
DNS_DENIED = "dns-denied"
#: The name does not resolve for any other reason.
DNS_FAILED = "dns-failed"
_MAX_ADDRESSES = 16


class Unresolved(Exception):
    """No address: the outcome, and what the resolver said."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


def resolve(host: str, deadline: float) -> list[str]:
    """All addresses of a name, by the system's resolver (in a thread: getaddrinfo knows no deadline)."""
    with contextlib.suppress(ValueError):
        return [str(ip_address(host))]
    answers: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(row[4][0]) for row in found)))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.05, deadline - monotonic()))
    except queue.Empty:
        raise Unresolved(DNS_FAILED, "the resolver did not answer in time") from None
    if isinstance(answer, list):
        return answer[:_MAX_ADDRESSES]
    code, text = _filtered(host, deadline)
    if code in (15, 16, 17, 18):
        raise Unresolved(DNS_DENIED, text or f"the resolver filters this name (extended error {code})")
    said = answer.strerror if isinstance(answer, OSError) else str(answer)
    raise Unresolved(DNS_FAILED, f"{said}; {text}" if text else str(said))


def _filtered(host: str, deadline: float) -> tuple[int | None, str]:
    """Ask the configured resolver once more, with EDNS, for why: the Extended DNS Error's code and text (RFC 8914)."""
    try:
        labels = host.encode("idna").rstrip(b".").split(b".")
        with open("/etc/resolv.conf") as file:  # noqa: PTH123
            servers = [w[1] for w in (line.split() for line in file) if len(w) > 1 and w[0] == "nameserver"]
    except (OSError, UnicodeError):
        return None, ""
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    query = os.urandom(2) + b"\x01\x00\0\1\0\0\0\0\0\1" + name + b"\0\1\0\1" + b"\0\0\x29\x04\xd0" + bytes(6)
    for server in servers[:3]:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.settimeout(min(1.0, max(0.05, deadline - monotonic())))
                sock.connect((server, 53))
                sock.send(query)
                answer = sock.recv(4096)
            if answer[:2] == query[:2]:
                return extended_error(answer)
        except (OSError, IndexError, struct.error):
            continue
    return None, ""


def extended_error(answer: bytes) -> tuple[int | None, str]:
    """The Extended DNS Error in a response's OPT record, and its text. Raises IndexError or struct.error on malformed bytes."""
    questions, *counts = struct.unpack("!4H", answer[4:12])
    at = 12
    for _ in range(questions):
        at = _skip_name(answer, at) + 4
    for _ in range(sum(counts)):
        at = _skip_name(answer, at)
        kind, _, _, length = struct.unpack("!HHIH", answer[at : at + 10])
        at, end = at + 10, at + 10 + length
        while kind == 41 and at + 4 <= end:
            option, size = struct.unpack("!HH", answer[at : at + 4])
            if option == 15 and size >= 2:
                (code,) = struct.unpack("!H", answer[at + 4 : at + 6])
                return code, answer[at + 6 : at + 4 + size].decode(errors="replace")
            at += 4 + size
        at = end
    return None, ""


def _skip_name(message: bytes, at: int) -> int:
    while message[at]:
        if message[at] >= 0xC0:
            return at + 2
        at += 1 + message[at]
    return at + 1
