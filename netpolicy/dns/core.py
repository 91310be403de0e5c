"""The DNS gate's decisions: bytes and the time in, a reply or what is to be done first out. Opens nothing, waits for nothing.

One question, as a transcript:

    step = core.ask(data, udp=True)             # bytes of a query
    Ready(wire)                                 # send it (or nothing): denied, malformed, or known already
    Lookup(query, ...)                          # ask an upstream; then
      answer = core.digest(lookup, response)    #   filtered, remembered
      due = core.due(lookup, answer)            #   tell the kernel, wait for its acknowledgement; then
      core.acknowledge(due)
      core.reply(lookup, answer)                #   only now is the answer sent
    Relay(query)                                # the policy is off, or only observed: forward the bytes as they are

A name is answered only if the policy lists it, whatever its addresses. Of an answer only the chain that starts at the asked name
counts; addresses that are not public, or denied, are taken out. Questions for other types than A and AAAA are answered "no data"
without asking anyone: HTTPS and SVCB records would offer other endpoints and encrypted ClientHellos, TXT carries data in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, inf

from netpolicy.clock import Clock
from netpolicy.dns import lifetimes, wire
from netpolicy.dns.answers import Answer, filtered, follow
from netpolicy.dns.budget import Budget
from netpolicy.dns.learned import LearnedTable
from netpolicy.dns.reading import read_query
from netpolicy.dns.view import Allowed, NameView
from netpolicy.dns.wire import ExtendedError, Query, Record, Response, WireError
from netpolicy.dns.writing import truncate, write_error, write_reply
from netpolicy.flow import Address
from netpolicy.ruleset import Learned

#: Denied names remembered for people; whatever else a workload makes up is only counted.
_MOST_DENIED = 1024
#: Answers kept at once; further ones are fetched for each question.
_MOST_KEPT = 16384


@dataclass(frozen=True, slots=True)
class Ready:
    """Send this; with None, stay silent."""

    wire: bytes | None


@dataclass(frozen=True, slots=True)
class Lookup:
    """An allowed question that needs an upstream, the kernel, or both."""

    query: Query
    allowed: Allowed
    view: NameView
    """The ruleset it was judged by; under another one it must be asked again."""
    limit: int
    known: Answer | None
    """Set where only the kernel must still be told."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A question that is forwarded as it is: the policy is off, or it is only observed and would have said no."""

    query: Query
    limit: int


@dataclass(slots=True)
class Counters:
    """What happened, since the gate started."""

    answered: int = 0
    denied: int = 0
    observed: int = 0
    limited: int = 0
    stripped: int = 0
    failed: int = 0


class DnsCore:
    """The DNS gate of one attachment, without its sockets."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cache: dict[tuple[bytes, int], Answer] = {}
        self.view: NameView | None = None
        """None while the attachment is locked."""
        self.table = LearnedTable()
        self.budget = Budget()
        self.counters = Counters()
        self.denied: dict[str, int] = {}
        """Names that were asked for and denied, with how often; the first 1024 of them."""
        self.observed: dict[str, int] = {}
        """The same of names that were answered because the policy is only observed."""

    def adopt(self, view: NameView | None) -> list[Learned]:
        """Judge by another ruleset from now on (None: locked).

        Returns:
            Addresses learned before for names that it still allows, which the kernel must be told again.
        """
        self.view = view
        self._cache.clear()
        if view is None or view.open:
            self.table = LearnedTable()
            return []
        return self.table.carry_over(view, self._clock)

    def ask(self, data: bytes, *, udp: bool) -> Ready | Lookup | Relay:
        """Judge the bytes of one query. Never raises."""
        try:
            query = read_query(data)
        except WireError as malformed:
            return Ready(write_error(data, malformed.rcode))
        if query is None:
            return Ready(None)
        return self.judge(query, _limit(query) if udp else 65535)

    def judge(self, query: Query, limit: int) -> Ready | Lookup | Relay:
        """Judge a question by the ruleset of this moment."""
        if self.view is None:
            locked = ExtendedError(wire.EDE_NOT_READY, "no policy has been applied yet")
            return Ready(write_reply(query, wire.SERVFAIL, error=locked, limit=limit))
        if self.view.open:
            return Relay(query, limit)
        view = self.view
        allowed = view.allowed(query.name)
        if allowed is None or (allowed.until is not None and allowed.until <= self._clock.now()):
            return self._unknown(query, view, limit)
        if query.type != wire.A and (query.type != wire.AAAA or not view.ipv6):
            if view.observed:
                return Relay(query, limit)
            self.counters.answered += 1
            return Ready(write_reply(query, wire.NOERROR, negative_ttl=lifetimes.NEGATIVE, limit=limit))
        known = self._cache.get((query.name, query.type))
        if known is not None and known.until <= self._clock.monotonic():
            del self._cache[query.name, query.type]
            known = None
        lookup = Lookup(query, allowed, view, limit, known)
        if known is None:
            return lookup if allowed.under is None else self._paid(lookup, allowed.under)
        return lookup if self.due(lookup, known) else Ready(self.reply(lookup, known))

    def digest(self, lookup: Lookup, response: Response) -> Answer:
        """Take what is ours from an upstream's response to the question, and remember it."""
        chain, found = follow(lookup.query.name, lookup.query.type, response)
        answer = self._filtered(chain, found, response, lookup.view, lookup.allowed)
        if lookup.allowed.under is not None and answer.addresses:
            self.budget.resolved(lookup.query.name)
        if lookup.view is self.view:
            self._keep(lookup.query.name, lookup.query.type, answer)
        return answer

    def prime(
        self, allowed: Allowed, kind: int, addresses: Sequence[Address], aliases: Sequence[str], ttl: int
    ) -> Answer:
        """Remember an answer that was fetched before anybody asked for it; `due_for` says what the kernel must be told."""
        assert self.view is not None
        owners = [wire.name_to_wire(allowed.name)]
        plain = not any("\\" in alias for alias in aliases)
        if plain:
            owners += [wire.name_to_wire(alias) for alias in aliases]
        chain = [Record(owner, wire.CNAME, ttl, target) for owner, target in pairwise(owners)]
        found = [Record(owners[-1], kind, ttl, address.packed) for address in addresses]
        answer = self._filtered(chain, found, None, self.view, allowed)
        if plain:  # an alias with unusual bytes is written with escapes here; whoever asks gets it from upstream
            self._keep(owners[0], kind, answer)
        return answer

    def due(self, lookup: Lookup, answer: Answer) -> list[Learned]:
        """What the kernel must acknowledge before this answer may leave."""
        return self.due_for(lookup.allowed, answer)

    def due_for(self, allowed: Allowed, answer: Answer) -> list[Learned]:
        """The same, for a name of the ruleset."""
        now = self._clock.monotonic()
        left = max(0, ceil(answer.until - now))
        seconds = self._seconds(allowed, answer)
        return self.table.due(
            allowed.name,
            answer.addresses,
            allowed.services,
            seconds=seconds,
            needed=min(left + lifetimes.GRACE, seconds),
            now=now,
        )

    def acknowledge(self, entries: Sequence[Learned]) -> None:
        """The kernel has taken these."""
        self.table.record(entries, self._clock.monotonic())

    def reply(self, lookup: Lookup, answer: Answer) -> bytes:
        """The reply, once nothing is due any more."""
        now = self._clock.monotonic()
        query, allowed = lookup.query, lookup.allowed
        self.counters.answered += 1
        seconds = self._seconds(allowed, answer)
        self.table.claim(allowed.name, answer.addresses, allowed.services, seconds=seconds, now=now)
        left = max(0, ceil(answer.until - now))
        records = [replace(record, ttl=left) for record in answer.chain]
        owner = records[-1].data if records else query.name
        records += [Record(owner, query.type, left, address.packed) for address in answer.given]
        error = None
        if answer.stripped:
            reasons = "; ".join(answer.stripped[:3])
            error = ExtendedError(wire.EDE_BLOCKED, f"taken out of the answer: {reasons}")
        negative = None if answer.given else min(left, lifetimes.NEGATIVE)
        return write_reply(query, answer.rcode, answers=records, negative_ttl=negative, error=error, limit=lookup.limit)

    def failure(self, step: Lookup | Relay, code: int, text: str) -> bytes:
        """The reply where no upstream answered, or the kernel did not take the addresses: closed, and it says why."""
        self.counters.failed += 1
        return write_reply(step.query, wire.SERVFAIL, error=ExtendedError(code, text), limit=step.limit)

    def relayed(self, step: Relay, response: bytes) -> bytes:
        """The reply to what was forwarded: the upstream's bytes, under the client's own identifier."""
        self.counters.answered += 1
        return truncate(step.query.id.to_bytes(2) + response[2:], step.limit)

    def _unknown(self, query: Query, view: NameView, limit: int) -> Ready | Relay:
        """A name that the policy does not list, or denies."""
        name = wire.name_to_text(query.name)
        if view.observed:
            return self._observe(query, name, limit)
        self.counters.denied += 1
        _count(self.denied, name)
        denial = view.denial(name)
        text = f"{name} is not allowed by {view.policy}; to allow it add it to firewall.domains"
        if denial is not None:
            text = f"{name} is denied by {view.policy}: {denial.origin.text} ({denial.origin.key})"
        error = ExtendedError(wire.EDE_BLOCKED, text)
        return Ready(write_reply(query, wire.NXDOMAIN, negative_ttl=lifetimes.DENIED, error=error, limit=limit))

    def _paid(self, lookup: Lookup, under: str) -> Lookup | Ready | Relay:
        """A new name below a wildcard: it is asked for where the budget allows it."""
        query, limit = lookup.query, lookup.limit
        excess = self.budget.spend(query.name, under, self._clock.monotonic())
        if excess is None:
            return lookup
        name = wire.name_to_text(query.name)
        if lookup.view.observed:
            return self._observe(query, name, limit)
        self.counters.limited += 1
        _count(self.denied, name)
        negative = lifetimes.DENIED if excess.rcode == wire.NXDOMAIN else None
        error = ExtendedError(wire.EDE_BLOCKED, excess.text)
        return Ready(write_reply(query, excess.rcode, negative_ttl=negative, error=error, limit=limit))

    def _observe(self, query: Query, name: str, limit: int) -> Relay:
        self.counters.observed += 1
        _count(self.observed, name)
        return Relay(query, limit)

    def _filtered(
        self,
        chain: Sequence[Record],
        found: Sequence[Record],
        response: Response | None,
        view: NameView,
        allowed: Allowed,
    ) -> Answer:
        answer = filtered(chain, found, response, view, allowed, self._clock.monotonic(), self._left(allowed))
        self.counters.stripped += len(answer.stripped)
        return answer

    def _keep(self, name: bytes, kind: int, answer: Answer) -> None:
        now = self._clock.monotonic()
        if answer.until <= now:
            return
        if len(self._cache) >= _MOST_KEPT:
            self._cache = {key: kept for key, kept in self._cache.items() if kept.until > now}
        if len(self._cache) < _MOST_KEPT:
            self._cache[name, kind] = answer

    def _seconds(self, allowed: Allowed, answer: Answer) -> float:
        """The lifetime in the kernel of an answer's addresses: it never outlives the rules that allow the name."""
        return min(lifetimes.element_seconds(answer.ttl), self._left(allowed))

    def _left(self, allowed: Allowed) -> float:
        """Seconds until the last of the rules that allow a name ends."""
        return inf if allowed.until is None else max(0.0, allowed.until - self._clock.now())


def _count(names: dict[str, int], name: str) -> None:
    if name in names or len(names) < _MOST_DENIED:
        names[name] = names.get(name, 0) + 1


def _limit(query: Query) -> int:
    """Bytes of a UDP reply that the client takes and no link fragments."""
    return min(max(query.payload or wire.PLAIN_PAYLOAD, wire.PLAIN_PAYLOAD), wire.UDP_PAYLOAD)
