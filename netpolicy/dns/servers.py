"""Upstream resolvers: how they are written, and where the machine's own are found."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netpolicy.errors import Exit, UserError
from netpolicy.flow import Address

RESOLV_CONF = Path("/etc/resolv.conf")

_WITH_PORT = re.compile(r"^(?:\[(?P<six>[^\]]+)\]|(?P<four>[0-9.]+))(?::(?P<port>[0-9]+))?$")


@dataclass(frozen=True, slots=True)
class Server:
    """One upstream resolver."""

    address: Address
    """An IPv6 address may carry a zone (``fe80::1%eth0``)."""
    port: int = 53

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Server:
        """Read ``192.0.2.53``, ``192.0.2.53:5353``, ``2001:db8::53`` or ``[2001:db8::53]:5353``.

        Raises:
            UserError: ``bad-upstream``.
        """
        match = _WITH_PORT.match(text)
        host, port = (match["six"] or match["four"], int(match["port"] or 53)) if match else (text, 53)
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if address is None or not 0 < port < 65536:
            raise UserError(
                "bad-upstream",
                f"{text!r} is not the address of a resolver",
                hint="Write an address, or address:port, e.g. 192.0.2.53 or [2001:db8::53]:5353.",
                exit_status=Exit.BAD_INPUT,
            )
        return cls(address, port)

    def target(self) -> tuple[int, Any]:
        """Address family and socket address. Raises OSError where the zone names no interface."""
        found = socket.getaddrinfo(str(self.address), self.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        return found[0][0], found[0][4]


#: Asked anew for every question, so that a changed resolv.conf counts at once.
ServerList = Callable[[], Sequence[Server]]


class ResolvConf:
    """The servers that a resolv.conf names, read again whenever the file has changed; none where there is no such file."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._servers: tuple[Server, ...] = ()

    def __call__(self) -> tuple[Server, ...]:
        """See `ServerList`."""
        try:
            stat = self._path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._servers = _read(self._path.read_text(errors="replace"))
                self._seen = seen
        except OSError:
            self._seen, self._servers = None, ()
        return self._servers


def _read(text: str) -> tuple[Server, ...]:
    """The ``nameserver`` lines (resolv.conf(5)); what is not an address is passed over."""
    servers: list[Server] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            servers.append(Server(ipaddress.ip_address(words[1])))
        except ValueError:
            continue
    return tuple(dict.fromkeys(servers))
