"""What of a rule has an effect at all, whatever else is allowed: the part of `decide` that no rule can change."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from ipaddress import ip_network

from netpolicy import spans
from netpolicy.addresses import FORBIDDEN, UNROUTABLE
from netpolicy.flow import PORTED
from netpolicy.lifted import lifted as granted
from netpolicy.ruleset import Network, RangeRule
from netpolicy.services import Service, merged, subtract
from netpolicy.spans import Spans

#: Queries to this port never get further than the gate.
_DNS = (Service(6, 53, 53), Service(17, 53, 53))
#: Packets to these are IPv4 packets to the address inside.
_MAPPED = ip_network("::ffff:0:0/96")


def plain(services: Iterable[Service]) -> tuple[Service, ...]:
    """The services in one form: protocols without ports have port 0, and what names another one of them covers no flow."""
    return _plain(tuple(services))


def effective(services: Iterable[Service]) -> tuple[Service, ...]:
    """What a rule with these services can open."""
    return _effective(tuple(services))


# Rules have many places, but few lists of services.
@lru_cache(4096)
def _plain(services: tuple[Service, ...]) -> tuple[Service, ...]:
    known = (
        s if s.protocol in PORTED else Service(s.protocol) for s in services if s.protocol in PORTED or not s.first
    )
    return merged(known)


@lru_cache(4096)
def _effective(services: tuple[Service, ...]) -> tuple[Service, ...]:
    return subtract(_plain(services), _DNS)


def common(some: Iterable[Service], others: Iterable[Service]) -> tuple[Service, ...]:
    """What both lists of services have."""
    own = merged(some)
    return subtract(own, subtract(own, others))


def asked(name: str) -> bool:
    """Whether a rule for this name can decide a flow: names are asked for in one spelling, and localhost is not asked for."""
    return name == name.lower().removesuffix(".") and name.rpartition(".")[2] != "localhost"


@cache
def _never(version: int) -> Spans:
    return spans.of_networks([n for n in (*UNROUTABLE, _MAPPED) if n.version == version], version)


def outward(network: Network) -> Spans:
    """The addresses of a network to which a packet can leave the workload's own link."""
    return spans.subtract(spans.of_networks([network], network.version), _never(network.version))


def lifted(rule: RangeRule) -> Spans:
    """The addresses that allowed names may have because of this rule: it lies in a block which they are otherwise kept out of."""
    version = rule.network.version
    return spans.subtract(granted([rule.network], version), _never(version))


def answerable(ranges: Iterable[RangeRule], version: int) -> Spans:
    """The addresses that allowed names may have by these ranges: public ones, and those that a range lifts."""
    own = granted((rule.network for rule in ranges if rule.network.version == version), version)
    return spans.subtract(spans.union([_public(version), own]), _never(version))


@cache
def _public(version: int) -> Spans:
    kept_out = [block for block, _what, _source in FORBIDDEN if block.version == version]
    return spans.subtract(everything(version), spans.of_networks(kept_out, version))


@cache
def everything(version: int) -> Spans:
    """All addresses of a family."""
    return Spans(version, ((0, (1 << (32 if version == 4 else 128)) - 1),))
