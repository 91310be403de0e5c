"""A resolver's address: ``192.0.2.53``, ``192.0.2.53:5353``, ``2001:db8::53`` or ``[2001:db8::53]:5353``."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from netpolicy.flow import Address
from netpolicy.policy.ports import LAST, no_such
from netpolicy.policy.problems import Refused

PORT = 53
_FORM = "a resolver's address, such as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:5353"
_BRACKETS = re.compile(r"\[(?P<address>[^\]]*)\](?::(?P<port>[0-9]{1,5}))?\Z", re.ASCII)
_PLAIN = re.compile(r"(?P<address>[^:]*)(?::(?P<port>[0-9]{1,5}))?\Z", re.ASCII)


def parse(text: str) -> tuple[Address, int]:
    """Read it. Raises Refused, a ValueError with a sentence for people."""
    form = _BRACKETS if text.startswith("[") else _PLAIN
    match = form.match(text) if text.count(":") < 2 or form is _BRACKETS else None
    address, port = (match["address"], match["port"]) if match else (text, None)
    try:
        found = ip_address(address)
    except ValueError as error:
        raise Refused(f"must be {_FORM}") from error
    if found.is_unspecified or found.is_multicast or "%" in address:
        raise Refused(f"nobody answers at this address; write {_FORM}")
    number = PORT if port is None else int(port)
    if not 1 <= number <= LAST:
        raise Refused(no_such(number))
    return found, number


def written(address: Address, port: int = PORT) -> str:
    """The shortest text that `parse` reads back."""
    if port == PORT:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def canonical(entry: Any) -> str:
    """The one spelling of an entry of `dns.upstream`. Raises Refused."""
    if not isinstance(entry, str):
        raise Refused('must be a text such as "192.0.2.53" or "192.0.2.53:5353"')
    return written(*parse(entry))
