"""One attachment's rules in one family: what a `Ruleset` looks like in iptables' language. Pure.

Chains (ID is the attachment's id): ``ID-src`` its own senders, ``ID-out`` what comes from it, ``ID-in`` what goes to it,
``ID-host`` what goes to the host itself, ``ID-note`` counts and notes, ``ID-no`` what follows a denial, ``ID-dns`` redirects
queries, ``ID-nat`` translates sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from netpolicy.addresses import UNROUTABLE
from netpolicy.attachment import Attachment
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Address
from netpolicy.kernel.ipset import matching as m
from netpolicy.kernel.ipset.layout import ON_LINK
from netpolicy.kernel.ipset.naming import Names
from netpolicy.kernel.ipset.ranges import Look, Looks
from netpolicy.kernel.ipset.script import Script
from netpolicy.kernel.nftables.learning import Slot
from netpolicy.ruleset import Network, Ruleset
from netpolicy.services import Service

#: ICMPv6 to the host that is neither allowed nor worth counting: multicast listeners, router solicitation and -advertisement, redirect.
_LINK_NOISE: Final = (130, 131, 132, 133, 134, 137, 143)
#: What the namespace itself has to send on its links: neighbours, routers, multicast listeners (RFC 4861, RFC 3810).
_LINK_NEEDS: Final = (133, 135, 136, 131, 132, 143)
#: What never leaves the link, and is no policy's business: groups, everybody, neighbours without an address.
_LINK: Final = tuple(block for block in UNROUTABLE if not block.is_loopback)
_DNS: Final = (Service(17, 53, 53), Service(6, 53, 53))


def check(attachment: Attachment) -> None:
    """Refuse what cannot name kernel objects, or stand in a rule.

    Raises:
        UserError: ``bad-attachment``.
    """
    interface = attachment.interface
    if not re.fullmatch("[a-z0-9]{1,16}", attachment.id):
        problem = f"the id {attachment.id!r} is not 1 to 16 lower-case letters and digits"
    elif attachment.hook == "output" and interface:
        problem = f"at the output hook it has no interface, not {interface!r}"
    elif attachment.hook == "forward" and not 1 <= len(interface.encode()) <= 15:
        problem = f"{interface!r} is not an interface name (1 to 15 bytes, no slash, no space)"
    elif re.search(r"[/\s\"'\\]", interface) or interface.startswith(("!", "-")) or interface.endswith("+"):
        problem = f"{interface!r} is not an interface name that iptables can match"
    elif len({gateway.version for gateway in attachment.gateways}) < len(attachment.gateways):
        problem = "it has more than one gateway address in a family"
    else:
        return
    raise UserError("bad-attachment", f"cannot attach {attachment.name!r}: {problem}", exit_status=Exit.BAD_INPUT)


def check_prefix(prefix: str) -> None:
    """Refuse a prefix of interface names that cannot stand in a rule.

    Raises:
        UserError: ``bad-prefix``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.:@-]{1,14}", prefix) or prefix.startswith("-"):
        raise UserError(
            "bad-prefix", f"{prefix!r} is no prefix of interface names for iptables", exit_status=Exit.BAD_INPUT
        )


def mark(ruleset: Ruleset, dns_port: int | None) -> str:
    """What the first rule's comment says of the ruleset in force."""
    return f"ruleset {ruleset.id} {ruleset.mode} dns {dns_port or 0}"


def mark_in(rule: str) -> str:
    """What `mark` wrote, out of the first rule of ``ID-out``."""
    found = re.search(r'--comment "?([^"|]*?)(?: \||"|$)', rule)
    return found[1] if found else ""


def ruleset_in(rule: str) -> str | None:
    """The ruleset's id in that rule; None in a locked attachment's."""
    words = mark_in(rule).split()
    return words[1] if words[:1] == ["ruleset"] else None


@dataclass(frozen=True)
class Enforced:
    """A ruleset, as it is written in one family."""

    ruleset: Ruleset
    """Without what has ended."""
    mark: str
    """What the first rule says of it."""
    dns_port: int | None
    looks: Looks
    learned: Mapping[Slot, str]
    """The set of each slot."""


@dataclass(frozen=True)
class Writer:
    """Writes the chains of one attachment in one family."""

    names: Names
    attachment: Attachment
    version: int

    @property
    def table(self) -> str:
        """Where it is judged."""
        return "mangle" if self.attachment.hook == "forward" else "filter"

    def lock(self, script: Script) -> None:
        """Rules that refuse everything."""
        self._shared(script)
        locked = f"{self._note_of('locked')} {m.CLEAR_PASSED}"
        if self.attachment.hook == "output":
            script.chain(self.table, self._own("out"), [locked, *self._own_links(), f"-g {self._own('no')}"])
            script.chain(self.table, self._own("no"), [self._refuse()])
            script.chain("nat", self._own("dns"))
            return
        script.chain(self.table, self._own("out"), [locked, f"-j {self._own('src')}", f"-g {self._own('no')}"])
        script.chain(self.table, self._own("no"), [f"-j {self._own('note')}"])
        script.chain(self.table, self._own("in"), [m.CLEAR_PASSED])
        host = [*self._host_links(), f"-j {self._own('note')}"]
        script.chain(self.table, self._own("host"), host)
        script.chain("nat", self._own("dns"))
        script.chain("nat", self._own("nat"))

    def enforce(self, script: Script, new: Enforced) -> None:
        """Rules for a ruleset."""
        ruleset, dns_port = new.ruleset, new.dns_port
        self._shared(script)
        first = f"{self._note_of(new.mark)} {m.CLEAR_PASSED}"
        if self.attachment.hook == "output":
            local = [*self._own_links(), *self._own_host(ruleset)]
            script.chain("nat", self._own("dns"), self._own_dns(dns_port))
        else:
            local = [f"-o {self.attachment.interface} {self._ok}", f"-j {self._own('src')}", *self._replies()]
            script.chain(self.table, self._own("in"), self._in())
            script.chain(self.table, self._own("host"), self._host(ruleset, dns_port))
            script.chain("nat", self._own("dns"), self._dns(dns_port))
            script.chain("nat", self._own("nat"), self._nat())
        script.chain(self.table, self._own("out"), [first, *local, *self._policy(new)])
        script.chain(self.table, self._own("no"), self._no(ruleset))

    def _shared(self, script: Script) -> None:
        counts = self.names.counts(self.version, self.attachment.id)
        refusals = self.names.refusals(self.version, self.attachment.id)
        noting = (
            m.in_set(counts),
            f"{m.in_set(refusals, ports=True)} -j RETURN",
            f"-j SET --add-set {refusals} dst,dst",
        )
        script.chain(self.table, self._own("note"), noting)
        if self.attachment.hook == "forward":
            forged = (m.in_set(counts), "-j DROP")
            own = [f"-s {network} -j RETURN" for network in self._networks()]
            on_link = [f"-s {sender} -j RETURN" for sender in ON_LINK if self.version == 6]
            script.chain("raw", self._own("src"), [*own, *on_link, *forged])
            script.chain(self.table, self._own("src"), [*own, *forged])

    def _policy(self, new: Enforced) -> Iterator[str]:
        passing, no = f"-g {self.names.shared('pass')}", f"-g {self._own('no')}"
        if new.ruleset.mode == "off":
            yield passing
            return
        if self.version == 6 and not new.ruleset.ipv6:
            yield no
            return
        for look in new.looks.denied:
            yield f"{self._look(look)} {no}"
        for slot, name in new.learned.items():
            match = "" if slot.service is None else m.service(slot.service)
            yield f"{match} {m.in_set(name, ports=slot.service is None)} {passing}".strip()
        for look in new.looks.allowed:
            yield f"{self._look(look)} {passing}"
        yield no

    def _look(self, look: Look) -> str:
        return f"{look.match} {m.in_set(look.into.name(self.names), ports=look.into.with_ports)}".strip()

    def _no(self, ruleset: Ruleset) -> Iterator[str]:
        """After a denial: it is noted, and then it passes where the policy is only observed."""
        yield f"-j {self._own('note')}"
        if ruleset.mode == "observe":
            yield f"-g {self.names.shared('pass')}"
        elif self.attachment.hook == "output":
            yield self._refuse()

    def _in(self) -> Iterator[str]:
        yield m.CLEAR_PASSED
        yield from self._replies()
        if self.attachment.published:
            yield f"{m.state('DNAT')} {self._ok}"

    def _host(self, ruleset: Ruleset, dns_port: int | None) -> Iterator[str]:
        yield from self._host_links()
        yield from self._replies()
        for service in self._host_services(ruleset, dns_port):
            for gateway in self._gateways():
                yield f"-d {gateway} {m.service(service)} {self._ok}"
        # Broadcast and multicast are nobody's attempt to reach something; no answer is sent to them anyway.
        yield "-m pkttype ! --pkt-type unicast -j DROP"
        yield f"-j {self._own('note')}"

    def _host_links(self) -> Iterator[str]:
        yield m.CLEAR_PASSED
        if self.version == 6:
            for kind in (135, 136):
                yield f"{_icmpv6(kind)} {self._ok}"
            for kind in _LINK_NOISE:
                yield f"{_icmpv6(kind)} -j DROP"
        yield f"-j {self._own('src')}"

    def _replies(self) -> Iterator[str]:
        yield f"{m.state('ESTABLISHED')} {self._ok}"
        # Only errors about a connection are "related" to it; what protocol helpers expect (FTP) is not let through. And only about
        # one of the workload's own: an error about a connection of the host would carry bytes to whoever that is with.
        for network in self._networks():
            yield f"{self._errors()} --ctorigsrc {network} {self._ok}"

    def _dns(self, port: int | None) -> Iterator[str]:
        """Queries to the gateway or to anything outside; another name server in the own network is the workload's own business."""
        for gateway in self._gateways() if port is not None else ():
            target = f"{gateway}:{port}" if self.version == 4 else f"[{gateway}]:{port}"
            for to in (f"-d {gateway}", *(f"-d {network}" for network in self._networks()), ""):
                for service in _DNS:
                    then = "RETURN" if "/" in to else f"DNAT --to-destination {target}"
                    yield f"{to} {m.service(service)} -j {then}".strip()

    def _nat(self) -> Iterator[str]:
        for network in self._networks():
            yield f"-s {network} ! -o {self.attachment.interface} {m.HAS_PASSED} -j MASQUERADE"

    # The output hook: the workload is on this side.

    def _own_links(self) -> Iterator[str]:
        yield f"-o lo {self._ok}"
        # A redirected query still has the interface that it would have left by.
        yield f"-d {'127.0.0.0/8' if self.version == 4 else '::1/128'} {self._ok}"
        if self.version == 6:
            for kind in _LINK_NEEDS:
                yield f"{_icmpv6(kind)} {self._ok}"

    def _own_host(self, ruleset: Ruleset) -> Iterator[str]:
        """What no policy opens or shuts: the host, replies, free networks and the link."""
        for gateway in self._gateways():
            yield from (f"-d {gateway} {m.service(s)} {self._ok}" for s in self._host_services(ruleset, None))
        yield f"{m.state('ESTABLISHED')} {self._ok}"
        yield f"{self._errors()} {self._ok}"
        # How somebody else's rules refuse what comes in, or is forwarded; a helper's expected connection opens otherwise.
        yield f"-p tcp -m tcp --tcp-flags RST RST {m.state('RELATED')} {self._ok}"
        for gateway in self._gateways():
            yield from self._never(f"-d {gateway}")
        yield from (f"-d {network} {self._ok}" for network in self._networks())
        for block in _LINK:
            if block.version == self.version:
                yield from self._never(f"-d {block}")

    def _never(self, match: str) -> Iterator[str]:
        yield f"{match} -j {self._own('note')}"
        yield f"{match} {self._refuse()}"

    def _own_dns(self, port: int | None) -> Iterator[str]:
        for service in _DNS if port is not None else ():
            yield f"{m.service(service)} -j REDIRECT --to-ports {port}"

    # Words.

    @property
    def _ok(self) -> str:
        return f"-g {self.names.shared('ok')}"

    def _refuse(self) -> str:
        return f"-g {self.names.shared('refuse')}"

    def _own(self, kind: str) -> str:
        return self.names.own(self.attachment.id, kind)

    def _errors(self) -> str:
        return f"-p {'icmp' if self.version == 4 else 'ipv6-icmp'} {m.state('RELATED')}"

    def _host_services(self, ruleset: Ruleset, dns_port: int | None) -> list[Service]:
        dns = [] if dns_port is None else [Service(6, dns_port, dns_port), Service(17, dns_port, dns_port)]
        return [*sorted({rule.service for rule in ruleset.host}), *dns]

    def _networks(self) -> tuple[Network, ...]:
        return tuple(n for n in self.attachment.networks if n.version == self.version)

    def _gateways(self) -> tuple[Address, ...]:
        return tuple(g for g in self.attachment.gateways if g.version == self.version)

    def _note_of(self, state: str) -> str:
        return m.comment(f"{state} | {self.attachment.name}")


def _icmpv6(kind: int) -> str:
    return f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind}"
