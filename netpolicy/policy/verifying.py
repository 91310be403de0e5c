"""The entries of `verify`: what a probe can try (`netpolicy.probe` reads the same words when it is time)."""

from __future__ import annotations

from typing import Any

from netpolicy.flow import PROTOCOLS
from netpolicy.policy import question, target
from netpolicy.policy.problems import Refused

_FORM = 'must be a text such as "example.com", "example.com:443" or "https://example.com/path"'
_SPOKEN = {PROTOCOLS[name] for name in ("tcp", "udp", "icmp", "icmpv6")}


def probe_target(entry: Any) -> str:
    """The one spelling of an entry: a URL as it is, a target as `target` writes it. Raises Refused."""
    if not isinstance(entry, str) or "@" in entry or entry != entry.strip():
        raise Refused(_FORM)
    flow = question.read(entry)
    scheme, is_url, _ = entry.partition("://")
    if is_url:
        if scheme not in ("http", "https"):
            raise Refused("a URL to probe begins with http:// or https://")
        if not entry.isascii() or not entry.isprintable() or " " in entry:
            raise Refused(
                "a URL to probe is plain ASCII: names as they are registered (xn--…), the rest percent-encoded"
            )
        return entry
    if flow.protocol not in _SPOKEN:
        raise Refused("a probe speaks tcp, udp or icmp")
    return str(target.read(entry))
