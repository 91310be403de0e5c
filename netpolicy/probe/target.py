"""What to try: ``host``, ``host:port``, ``host:port/tcp``, ``host:port/udp``, ``host/icmp``, ``[v6]:port``, or a URL of http or https.

A bare host means tcp/443. Part of the probe program (`netpolicy.probe.source`): standard library only.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit


class Target(NamedTuple):
    """What to try."""

    text: str
    """As the user wrote it."""
    host: str
    port: int
    """0 for icmp."""
    protocol: str
    """``tcp``, ``udp`` or ``icmp``."""
    scheme: str = ""
    """``http`` or ``https`` where an answer at that level is wanted."""
    path: str = "/"


def parse(text: str) -> Target:
    """Read a target. Raises ValueError with a sentence for people."""
    if "://" in text:
        return _parse_url(text)
    rest, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if protocol not in ("tcp", "udp", "icmp"):
        raise ValueError(f"{text!r}: the protocol {protocol!r} is not tcp, udp or icmp")
    port = ""
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError(f"{text!r}: an IPv6 address with a port is written [address]:port")
        port = tail[1:]
    elif rest.count(":") > 1:
        host = rest
    else:
        host, _, port = rest.partition(":")
    if not host or any(c.isspace() for c in host):
        raise ValueError(f"{text!r}: no host")
    if protocol == "icmp":
        if port:
            raise ValueError(f"{text!r}: icmp has no ports")
        return Target(text, host, 0, protocol)
    return Target(text, host, _port(text, port or "443"), protocol)


def _parse_url(text: str) -> Target:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r}: a URL to probe begins with http:// or https:// and names a host")
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}[parts.scheme]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(text, parts.hostname, _port(text, str(port)), "tcp", parts.scheme, path)


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{text!r}: the port {port!r} is not a number from 1 to 65535")
    return int(port)
