"""The rules that all attachments share: dispatch by interface, what follows a judgement, and the lock for our prefix.

::

    raw       PREROUTING             forged senders are dropped
    mangle    FORWARD, INPUT         a packet is judged; what may pass gets one bit of the mark
    filter    FORWARD, INPUT         what has it not is refused
    filter    OUTPUT                 the same for the namespace's own processes, judged and refused in one place
    security  FORWARD, INPUT, OUTPUT what has it not is dropped: it comes here where somebody else has accepted it before us
    mangle    POSTROUTING            what goes to the loopback does not leave by another interface
    nat       PREROUTING, OUTPUT     queries for names are redirected
    nat       POSTROUTING            sources are translated

Our jumps stand first in each of them. Should others come before (Docker puts its own first whenever it starts), should they
accept, flush or mark what they like: a packet without our bit does not get past ``filter`` or else ``security``, and only our
judgement gives the bit. What we let pass goes on to the chains of others, for we never accept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from netpolicy.attachment import Hook
from netpolicy.kernel.ipset import matching as m
from netpolicy.kernel.ipset.naming import Names
from netpolicy.kernel.ipset.script import Script

#: Table, built-in chain, and the kind of our chain that it jumps to.
JUMPS: Final = (
    ("raw", "PREROUTING", "from"),
    ("mangle", "FORWARD", "fwd"),
    ("mangle", "INPUT", "inp"),
    ("mangle", "POSTROUTING", "wire"),
    ("filter", "FORWARD", "fwd"),
    ("filter", "INPUT", "inp"),
    ("filter", "OUTPUT", "self"),
    ("security", "FORWARD", "fwd"),
    ("security", "INPUT", "inp"),
    ("security", "OUTPUT", "self"),
    ("nat", "PREROUTING", "dns"),
    ("nat", "OUTPUT", "ask"),
    ("nat", "POSTROUTING", "nat"),
)
#: By hook and table: the kinds of an attachment's own chains.
OWN_CHAINS: Final = {
    "forward": {
        "raw": ("src",),
        "mangle": ("src", "out", "in", "host", "note", "no"),
        "nat": ("dns", "nat"),
    },
    "output": {"filter": ("out", "note", "no"), "nat": ("dns",)},
}
#: Senders of neighbour discovery, to whom nothing is ever sent beyond the link.
ON_LINK: Final = ("fe80::/10", "::/128")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attachment is."""

    id: str
    interface: str
    """Empty at the output hook."""

    @property
    def hook(self) -> Hook:
        """Which of the two it is."""
        return "forward" if self.interface else "output"


@dataclass(frozen=True, slots=True)
class Layout:
    """The shared rules of one family."""

    names: Names
    version: int
    prefix: str | None
    """Of the interfaces that are locked while no policy is attached to them; None locks none."""
    looks_back: bool
    """Whether the kernel can look up the way back to a sender (``rpfilter``). Without it, interfaces that are locked by their
    prefix are met with silence; attachments know the senders they have."""
    places: Sequence[Place]

    def write(self, script: Script) -> None:
        """Put all of them into a script."""
        names = self.names
        script.chain("raw", names.shared("from"), self._senders())
        script.chain("mangle", names.shared("ok"), [m.SET_PASSED])
        script.chain("mangle", names.shared("locked"), [m.CLEAR_PASSED])
        script.chain("mangle", names.shared("near"), self._neighbours())
        script.chain("mangle", names.shared("pass"), self._pass())
        script.chain("mangle", names.shared("fwd"), self._judge_forwarded())
        script.chain("mangle", names.shared("inp"), self._judge_incoming())
        reject = "icmp-admin-prohibited" if self.version == 4 else "icmp6-adm-prohibited"
        refusing = ["-p tcp -j REJECT --reject-with tcp-reset", f"-j REJECT --reject-with {reject}"]
        script.chain("filter", names.shared("refuse"), refusing)
        script.chain("filter", names.shared("ok"), [m.SET_PASSED])
        script.chain("filter", names.shared("pass"), [f"{m.state('NEW', 'UNTRACKED')} {self._to('ok')}", "-j DROP"])
        for table in ("filter", "security"):
            script.chain(table, names.shared("fwd"), self._unjudged(table, "-i", "-o"))
            script.chain(table, names.shared("inp"), self._unjudged(table, "-i"))
        own = [place for place in self.places if place.hook == "output"]
        script.chain("filter", names.shared("self"), [f"-g {names.own(place.id, 'out')}" for place in own])
        guard = (f"{m.HAS_PASSED} -j RETURN", "-o lo -j RETURN", "-j DROP") if own else ()
        script.chain("security", names.shared("self"), guard)
        # Any socket can be bound to an interface other than the loopback's; only here it is certain which it is.
        loopback = "127.0.0.0/8" if self.version == 4 else "::1/128"
        script.chain("mangle", names.shared("wire"), [f"-d {loopback} ! -o lo -j DROP"] if own else [])
        script.chain("nat", names.shared("dns"), self._dispatch("-i", "dns"))
        script.chain("nat", names.shared("ask"), [f"-g {names.own(place.id, 'dns')}" for place in own])
        script.chain("nat", names.shared("nat"), [f"-j {names.own(p.id, 'nat')}" for p in self._forward()])

    def _senders(self) -> Iterator[str]:
        yield from self._dispatch("-i", "src")
        if self.prefix is not None and self.looks_back:
            for sender in ON_LINK if self.version == 6 else ():
                yield f"-i {self.prefix}+ -s {sender} -j RETURN"
            yield f"-i {self.prefix}+ -m rpfilter --invert -j DROP"

    def _judge_forwarded(self) -> Iterator[str]:
        yield from self._dispatch("-i", "out")
        yield from self._dispatch("-o", "in")
        yield from self._locked("-i", "-o", to="locked")

    def _judge_incoming(self) -> Iterator[str]:
        for place in self.places:
            if place.hook == "output":
                # What comes from the far end of a connection that was cut, or in the middle of one that is not known, must not look
                # like a connection that came in, to which answers would be free.
                new = f"! -i lo {m.state('NEW')}"
                yield f"{new} -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP"
                yield f"{new} -m set --match-set {self.names.barred(self.version, place.id)} src,src -j DROP"
        yield from self._dispatch("-i", "host")
        yield from self._locked("-i", to="near")

    def _neighbours(self) -> Iterator[str]:
        """Without neighbour discovery not even a refusal would reach a workload with IPv6."""
        yield m.CLEAR_PASSED
        if self.version == 6:
            for kind in (135, 136):
                yield f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} {self._to('ok')}"

    def _pass(self) -> Iterator[str]:
        """What a policy allows: not into another attachment, and only what a connection can be tracked for."""
        yield from self._dispatch("-o", "in")
        yield from self._locked("-o", to="locked")
        yield f"{m.state('NEW', 'UNTRACKED')} {self._to('ok')}"
        yield "-j DROP"

    def _unjudged(self, table: str, *directions: str) -> Iterator[str]:
        """What comes without our bit from an interface of ours, or goes to one."""
        yield f"{m.HAS_PASSED} -j RETURN"
        shut = "-j DROP" if table == "security" else self._to("refuse")
        for way in directions:
            for place in self._forward():
                covered = self.prefix is not None and place.interface.startswith(self.prefix)
                if not (covered and self.looks_back):
                    yield f"{way} {place.interface} {shut}"
            if self.prefix is not None:
                yield f"{way} {self.prefix}+ {shut if self.looks_back else '-j DROP'}"

    def _dispatch(self, way: str, kind: str) -> Iterable[str]:
        return [f"{way} {place.interface} -g {self.names.own(place.id, kind)}" for place in self._forward()]

    def _locked(self, *ways: str, to: str) -> Iterable[str]:
        return [] if self.prefix is None else [f"{way} {self.prefix}+ {self._to(to)}" for way in ways]

    def _forward(self) -> list[Place]:
        return [place for place in self.places if place.hook == "forward"]

    def _to(self, kind: str) -> str:
        return f"-g {self.names.shared(kind)}"
