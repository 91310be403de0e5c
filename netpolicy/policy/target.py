"""A target: what a rule names. The grammar, read and written.

    host                       a name or network alone: the default services (tcp 80 and 443, and 22 while `ssh` is on)
    host:443                   one TCP port
    host:443/udp               one port of a protocol: tcp, udp, sctp, udplite
    host:8000-8010/tcp         a range of ports, both ends included
    host:*                     every TCP and UDP port; host:*/udp every UDP port
    host/icmp                  ICMP or ICMPv6, by the family of the address

`host` is an exact name (``example.com``), all names below one (``*.example.com``), an IPv4 address or network (``192.0.2.0/24``), or an IPv6 one, which stands in
brackets where ports follow (``[2001:db8::1]:443``, ``[2001:db8::/32]:443``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network

from netpolicy.addresses import plain_network, unroutable
from netpolicy.patterns import is_wildcard
from netpolicy.policy import names, ports
from netpolicy.policy.problems import Refused
from netpolicy.ruleset import Network
from netpolicy.services import Service, merged, subtract

#: Queries to this port never get further than the gate.
DNS = (Service(ports.TCP, 53, 53), Service(ports.UDP, 53, 53))

_BRACKETS = re.compile(
    r"\[(?P<host>[^\]]*)\](?P<length>/[0-9]+)?(?::(?P<ports>[^/:]*))?(?:/(?P<protocol>.*))?\Z", re.ASCII
)
_PLAIN = re.compile(r"(?P<host>[^/:]*)(?P<length>/[0-9]+)?(?::(?P<ports>[^/:]*))?(?:/(?P<protocol>.*))?\Z", re.ASCII)
_BARE_V6 = re.compile(
    r"(?P<host>[^/]*)(?:(?P<length>/[0-9]+)(?::(?P<ports>[^/:]*))?)?(?:/(?P<protocol>.*))?\Z", re.ASCII
)
_DIGITS = re.compile(r"[0-9][0-9.]*\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """A host with the services it is named for."""

    host: str | Network
    """A canonical name, or a network (an address is a /32 or /128)."""
    services: tuple[Service, ...] = ()
    """Merged; empty for a bare target, which means the policy's default services."""

    def __str__(self) -> str:
        texts = ports.written(self.services)
        if not texts:
            return host_text(self.host)
        if len(texts) > 1:
            return f"{host_text(self.host)} ({', '.join(texts)})"
        return joined(self.host, texts[0])


def parse(text: str, *, deny: bool = False) -> Target:
    """Read the target of a rule.

    Args:
        text: The target.
        deny: Whether the rule takes away: such a one may stand for all names below a public suffix.

    Raises:
        Refused: with a sentence that says what would be right; also where a rule for it could have no effect.
    """
    found = read(text, names.pattern)
    _check(found, deny=deny)
    return found


def read(text: str, name: Callable[[str], str] = names.canonical) -> Target:
    """Read a target, whether or not a rule for it would have an effect; `name` reads its name. Raises Refused."""
    if not text:
        raise Refused("a target is empty; write one such as example.com or example.com:443")
    if any(c.isspace() for c in text):
        raise Refused("a target has no spaces; write each target as an entry of its own")
    if "://" in text:
        raise Refused(f"this is a URL; {_instead_of_url(text)}")
    if "@" in text:
        raise Refused(f"a target has no user; write {text.rpartition('@')[2].partition(':')[0]}:22 for SSH")
    form = _form(text)
    match = form.match(text)
    if match is None:
        raise Refused("this is no target; write host, host:port, host:port/protocol or [IPv6]:port")
    found = match.groupdict()
    host = _host(found["host"], found["length"], form, name)
    given, protocol = found["ports"], found["protocol"]
    if given is None and protocol is None:
        return Target(host)
    return _fitting(host, ports.services(given, protocol))


def _form(text: str) -> re.Pattern[str]:
    if text.startswith("["):
        return _BRACKETS
    looks_v6 = text.count(":") > 1 and "." not in text.partition(":")[0]
    return _BARE_V6 if looks_v6 else _PLAIN


def of(host: str | Network, services: tuple[Service, ...], *, deny: bool = False) -> Target:
    """The target of a rule, from its parts. Raises Refused where the rule could have no effect."""
    found = _fitting(host, services)
    _check(found, deny=deny)
    return found


def host_text(host: str | Network) -> str:
    """A name, an address, or a network with its length."""
    if isinstance(host, str):
        return host
    return str(host.network_address) if host.prefixlen == host.max_prefixlen else str(host)


def joined(host: str | Network, services: str) -> str:
    """A host and one entry of `ports.written`, as one target text."""
    text = host_text(host)
    if services == "icmp":
        return f"{text}/icmp"
    return f"[{text}]:{services}" if isinstance(host, IPv6Network) else f"{text}:{services}"


def _check(found: Target, *, deny: bool) -> None:
    """Refuse a target that no rule can open, or need deny, and one that opens what anybody can register. Raises Refused."""
    if isinstance(found.host, str):
        if found.host.rpartition(".")[2] == "localhost":
            more = "there is nothing to deny" if deny else "ports of the host are `host_access`"
            raise Refused(f"localhost is the workload itself, which it always reaches; {more}")
        if is_wildcard(found.host) and not deny:
            # The list of public suffixes is read for policies that need it.
            from netpolicy.policy.registrable import refuse_public

            refuse_public(found.host)
    elif (reason := unroutable(found.host)) is not None:
        more = "there is nothing to deny" if deny else "no rule can open it"
        raise Refused(f"{reason}, which never leaves the workload's own link: {more}")
    if found.services and not subtract(found.services, DNS):
        more = "nothing reaches that server anyway" if deny else "`dns.upstream` chooses whom it asks"
        raise Refused(f"the gate itself answers port 53, whichever server is named; {more}")


def _fitting(host: str | Network, services: tuple[Service, ...]) -> Target:
    """Of the two numbers of ``icmp``, a network keeps the one of its family."""
    if not isinstance(host, str):
        other = ports.ICMP[host.version == 4]
        services = tuple(service for service in services if service != other)
    return Target(host, merged(services))


def _host(text: str, length: str | None, form: re.Pattern[str], name: Callable[[str], str]) -> str | Network:
    if form is _PLAIN and not _DIGITS.match(text):
        if length is not None:
            raise Refused(f"only addresses have a prefix length; write {text} without {length}")
        return name(text)
    if "%" in text:
        raise Refused("an address has no zone here; write it without the part after %")
    if form is _BRACKETS and ":" not in text:
        raise Refused(f"brackets are for IPv6 addresses; write {text} without them")
    return network(f"{text}{length or ''}")


def network(text: str) -> Network:
    """Read an address or a network in prefix notation. Raises Refused."""
    try:
        return plain_network(ip_network(text))
    except ValueError as error:
        raise Refused(_instead_of_network(text)) from error


def _instead_of_network(text: str) -> str:
    try:
        return f"{text} has bits set after its prefix; write {ip_network(text, strict=False)}"
    except ValueError:
        kind = (
            "an IPv6 address; with a port it is written [address]:port" if ":" in text else "an IPv4 address or network"
        )
        example = "2001:db8::1 or 2001:db8::/32" if ":" in text else "192.0.2.1 or 192.0.2.0/24"
        return f"{text} is not {kind} (examples: {example})"


def _instead_of_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    port = {"https": ":443", "http": ":80", "ssh": ":22", "git": ":9418"}.get(scheme.lower(), ":443")
    return f"write {host or 'the host'}{'' if ':' in host else port}"
