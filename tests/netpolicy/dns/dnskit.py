"""Pieces for tests of the DNS gate: a clock that stands still, rulesets, and messages written and read by dnspython."""

from __future__ import annotations

import functools

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from netpolicy import policy, presets
from netpolicy.compile import compile_policy
from netpolicy.dns.core import DnsCore
from netpolicy.dns.reading import read_response
from netpolicy.dns.view import NameView
from netpolicy.dns.wire import Response
from netpolicy.ruleset import Ruleset


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def monotonic(self) -> float:
        return self.at

    def now(self) -> float:
        return 1_800_000_000.0 + self.at


def rules(*domains: str, **more: object) -> Ruleset:
    """A ruleset of these names (and whatever else a policy has), without presets."""
    document = {"domains": list(domains), "presets": dict.fromkeys(presets.names(), False), "ssh": False, **more}
    return compile_policy(policy.parse(document, source="test.json"))


def core(*domains: str, clock: FakeClock | None = None, **more: object) -> DnsCore:
    made = DnsCore(clock or FakeClock())
    made.adopt(_view(domains) if not more else NameView(rules(*domains, **more)))
    return made


@functools.cache
def _view(domains: tuple[str, ...]) -> NameView:
    return NameView(rules(*domains))


def query(name: str, kind: str = "A", *, edns: int | None = 1232, ident: int = 7) -> bytes:
    message = dns.message.make_query(name, kind, id=ident, use_edns=edns is not None, payload=edns or 0)
    return message.to_wire()


def answer(question: bytes, *rrsets: str, rcode: int = 0, authority: str | None = None) -> bytes:
    """A response to a query; each text is ``owner ttl type value [value...]``."""
    message = dns.message.make_response(dns.message.from_wire(question), recursion_available=True)
    message.set_rcode(dns.rcode.Rcode(rcode))
    for section, texts in ((message.answer, rrsets), (message.authority, [authority] if authority else [])):
        for text in texts:
            owner, ttl, kind, *values = text.split()
            if kind == "SOA":
                values = [" ".join(values)]
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, *values))
    return message.to_wire(max_size=65535)


def response(name: str, kind: str, *rrsets: str, rcode: int = 0, authority: str | None = None) -> Response:
    return read_response(answer(query(name, kind), *rrsets, rcode=rcode, authority=authority))


def read(wire: bytes | None) -> dns.message.Message:
    assert wire is not None
    return dns.message.from_wire(wire)


def ede(message: dns.message.Message) -> tuple[int, str] | None:
    """The extended error in a reply."""
    for option in message.options:
        if isinstance(option, dns.edns.EDEOption):
            return int(option.code), option.text or ""
    return None


def rows(message: dns.message.Message) -> list[str]:
    """The answer section, a record a line."""
    return [line for rrset in message.answer for line in rrset.to_text().splitlines()]
