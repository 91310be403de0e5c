"""The entries of `verify`: what a probe can try (`netpolicy.probe` reads the same words when it is time)."""

from __future__ import annotations

from typing import Any

from netpolicy.flow import protocol_name
from netpolicy.policy import question
from netpolicy.policy.problems import Refused

_FORM = 'must be a text such as "example.com", "example.com:443" or "https://example.com/path"'


def probe_target(entry: Any) -> str:
    """Check an entry. Raises Refused."""
    if not isinstance(entry, str):
        raise Refused(_FORM)
    if not entry.isascii():
        raise Refused("write the name as it is registered (xn--…)")
    if "@" in entry or entry != entry.strip():
        raise Refused(_FORM)
    scheme, is_url, _ = entry.partition("://")
    if is_url and scheme not in ("http", "https"):
        raise Refused("a URL to probe begins with http:// or https://")
    flow = question.read(entry)
    if protocol_name(flow.protocol) not in ("tcp", "udp", "icmp", "icmpv6"):
        raise Refused("a probe speaks tcp, udp or icmp")
    return entry
