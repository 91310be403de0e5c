"""Hypothesis strategies for policies: small pools, so that targets meet, nest and overlap."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import assume, settings
from hypothesis import strategies as st

from netpolicy.addresses import unroutable
from netpolicy.flow import Flow
from netpolicy.ruleset import Learned
from netpolicy.services import Service

# Machines differ in speed, and nothing is to be left in the working directory.
settings.register_profile("kit", deadline=None, database=None)
settings.load_profile("kit")

NAMES = ("example.com", "api.example.com", "example.org", "a-b.example.net", "xn--bcher-kva.example", "host")
_V4 = (ip_address("198.51.100.0"), ip_address("10.1.2.0"), ip_address("0.0.0.0"))
_V6 = (ip_address("2001:db8::"), ip_address("fd00::"), ip_address("::"))

ports = st.sampled_from([22, 80, 443, 8000, 8001, 65535]) | st.integers(1, 65535)
protocols = st.sampled_from(["tcp", "udp", "sctp", "udplite"])


@st.composite
def networks(draw: st.DrawFn) -> Any:
    """Nested networks of both families, wide and narrow."""
    base = draw(st.sampled_from(_V4 + _V6))
    bits = base.max_prefixlen
    length = draw(st.sampled_from([0, 8, 16, 23, 24, 25, 31, 32] if bits == 32 else [0, 8, 32, 64, 127, 128]))
    number = int(base) + draw(st.integers(0, 255))
    network = ip_network((number, length), strict=False)
    assume(unroutable(network) is None)
    return network


@st.composite
def port_words(draw: st.DrawFn) -> str:
    """Entries of `ports`."""
    first, second = draw(ports), draw(ports)
    numbers = draw(st.sampled_from([f"{first}", f"{min(first, second)}-{max(first, second)}", "*"]))
    return draw(st.sampled_from([numbers, f"{numbers}/{draw(protocols)}", "icmp"]))


@st.composite
def targets(draw: st.DrawFn) -> str:
    """Target texts that the language accepts."""
    host: Any = draw(st.sampled_from(NAMES) | networks())
    words = draw(st.none() | port_words())
    text = str(host)
    if not isinstance(host, str) and host.prefixlen == host.max_prefixlen and draw(st.booleans()):
        text = str(host.network_address)
    if words is None:
        return text
    if words == "icmp":
        return f"{text}/icmp"
    if words in ("53", "53/tcp", "53/udp"):
        words = "54"
    return f"[{text}]:{words}" if ":" in text else f"{text}:{words}"


@st.composite
def rules(draw: st.DrawFn) -> Any:
    """Entries of `allow`."""
    if draw(st.booleans()):
        return draw(targets())
    host = draw(st.sampled_from(NAMES) | networks().map(str))
    entry: dict[str, Any] = {"host": host}
    if draw(st.booleans()):
        entry["ports"] = [*draw(st.lists(port_words() | ports, min_size=1, max_size=4)), 443]
    if draw(st.booleans()):
        entry["reason"] = draw(st.text(min_size=1, max_size=10))
    return entry


def documents() -> st.SearchStrategy[dict[str, Any]]:
    """Whole policies that the language accepts."""
    return st.fixed_dictionaries(
        {},
        optional={
            "enabled": st.booleans(),
            "domains": st.lists(targets(), max_size=5),
            "allow": st.lists(rules(), max_size=5),
            "presets": st.dictionaries(st.sampled_from(["github", "npm", "pypi", "vercel"]), st.booleans()),
            "ssh": st.booleans() | st.just("any"),
            "host_access": st.lists(ports | ports.map(lambda p: f"{p}/udp"), max_size=3),
            "verify": st.fixed_dictionaries(
                {}, optional={"blocked": st.just(["example.com:443"]), "allowed": st.just(["https://example.org/zen"])}
            ),
            "dns": st.fixed_dictionaries({"upstream": st.just(["192.0.2.53", "[2001:db8::53]:5353"])}),
        },
    )


WILDCARDS = ("*.example.com", "*.api.example.com", "*.example.net", "*.bücher.example")
#: Ends that policies may write, and the moments around them.
ENDS = ("2027-01-31", "2027-01-31T23:59:59Z", "2027-02-01T00:00:00Z", "2030-06-01T12:00:00.5+02:00", "2999-12-31")
MOMENTS = (0.0, 1801439998.0, 1801439999.0, 1801440000.0, 1906538400.0, 1906538401.0, 40e9)
ROLES = ("dev", "browser", "services")


@st.composite
def more_rules(draw: st.DrawFn, *, deny: bool = False) -> Any:
    """Entries of `allow` or `deny` with all that they may say."""
    entry = draw(rules() | st.sampled_from([*WILDCARDS, "*.com"] if deny else WILDCARDS))
    said: dict[str, Any] = {"host": entry} if isinstance(entry, str) else dict(entry)
    if not deny and draw(st.booleans()):
        said["expires"] = draw(st.sampled_from(ENDS))
    if draw(st.booleans()):
        said["roles"] = draw(st.lists(st.sampled_from(ROLES), min_size=1, max_size=3))
    return entry if said.keys() == {"host"} else said


def policies() -> st.SearchStrategy[dict[str, Any]]:
    """Whole policies with every word of the language."""
    more = st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["enforce", "observe", "off"]),
            "domains": st.lists(targets() | st.sampled_from(WILDCARDS), max_size=5),
            "allow": st.lists(more_rules(), max_size=6),
            "deny": st.lists(more_rules(deny=True), max_size=4),
            "ipv6": st.booleans(),
            "on_drift": st.sampled_from(["repair", "lock"]),
        },
    )
    return st.builds(_joined, documents(), more)


def _joined(document: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    if "mode" in more:
        document.pop("enabled", None)
    return document | more


def addresses() -> st.SearchStrategy[Any]:
    """Addresses in and around the networks above, and odd ones."""
    near = st.builds(lambda base, offset: base + offset, st.sampled_from(_V4 + _V6), st.integers(0, 300))
    odd = [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "224.0.0.251",
        "fe80::1",
        "ff02::1",
        "::ffff:198.51.100.7",
        "140.82.112.3",
        "203.0.113.1",
    ]
    return near | st.sampled_from(odd).map(ip_address) | st.ip_addresses()


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Connection attempts of every kind, also senseless ones."""
    protocol = draw(st.sampled_from([6, 6, 17, 1, 58, 132, 136, 47]))
    port = draw(ports | st.just(53) | st.none())
    if draw(st.booleans()):
        return Flow(
            protocol, port, name=draw(st.sampled_from((*NAMES, "unknown.example", "app.localhost", "github.com")))
        )
    return Flow(protocol, port, address=draw(addresses()))


@st.composite
def learned(draw: st.DrawFn) -> Learned:
    """What the DNS gate may have opened."""
    first, second = sorted((draw(ports), draw(ports)))
    services = draw(
        st.sampled_from([(Service(6, 443, 443),), (Service(6, first, second), Service(17, 53, 53)), (Service(1),)])
    )
    return Learned(draw(st.sampled_from(NAMES)), draw(addresses()), services, 60.0)


#: Any JSON at all.
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)

_KEYS = (
    "mode",
    "enabled",
    "domains",
    "allow",
    "deny",
    "ipv6",
    "on_drift",
    "presets",
    "ssh",
    "host_access",
    "policy_file",
    "verify",
    "dns",
    "expires",
    "domain",
)
_INNER = ("host", "ports", "reason", "expires", "roles", "blocked", "allowed", "upstream", "github")
_wild = st.recursive(
    anything
    | targets()
    | port_words()
    | st.sampled_from((*ENDS, *ROLES, *WILDCARDS, "*.com", "enforce", "off", "lock")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_INNER), inner, max_size=3),
    max_leaves=8,
)
#: Policies with the right keys and the wrong values.
broken = st.dictionaries(st.sampled_from(_KEYS), _wild, max_size=5)
