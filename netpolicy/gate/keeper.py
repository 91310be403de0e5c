"""Keeps attachments: remembers them, puts their rulesets in force, restores them at the start, follows their interfaces.

The steps behind `core.Gate`, each sound by itself: a change is remembered before the kernel is asked for it, the kernel and the
DNS gate change together, and what fails leaves things as they were or locked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol
from weakref import WeakValueDictionary

from netpolicy.attachment import Enforcer
from netpolicy.clock import Clock
from netpolicy.dns.listeners import SocketFactory
from netpolicy.dns.servers import ServerList
from netpolicy.dns.upstreams import Upstreams
from netpolicy.dns.view import NameView
from netpolicy.errors import UserError
from netpolicy.gate.held import Held, hold
from netpolicy.gate.state import Record, StateStore
from netpolicy.gate.watch import LinkWatch
from netpolicy.gate.worker import Worker
from netpolicy.resolve import Resolution, resolve
from netpolicy.ruleset import Learned, Ruleset

_log = logging.getLogger("netpolicy.gate")
#: Seconds after which listeners are looked at even if no change of links was announced.
_LOOK = 2.0
#: Seconds that the names of a restored ruleset may take.
_RESTORE_SECONDS = 3.0
_NOTHING = Resolution((), {})


class Packets(Protocol):
    """A kernel counter."""

    @property
    def packets(self) -> int:
        """How many so far."""


class CountingEnforcer(Enforcer, Protocol):
    """An enforcer that also says what it refused."""

    def refused(self) -> Mapping[str, Packets]:
        """What each attachment's workload was refused, by attachment id."""


class Keeper:
    """What the gate holds, by attachment id; see `core.Gate` for the arguments."""

    def __init__(
        self,
        enforcer: CountingEnforcer,
        *,
        prefix: str | None,
        upstreams: ServerList,
        store: StateStore | None,
        clock: Clock,
        open_socket: SocketFactory,
    ) -> None:
        self.enforcer = enforcer
        self.worker = Worker("netpolicy-kernel")
        self.held: dict[str, Held] = {}
        self.problems: list[str] = []
        self._prefix = prefix
        self._upstreams = upstreams
        self._store = store
        self._clock = clock
        self._open_socket = open_socket
        self._saving = asyncio.Lock()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: list[asyncio.Task[None]] = []
        self._watch: LinkWatch | None = None

    async def start(self) -> None:
        """The base lock, what was remembered, the listeners: in this order. Raises UserError where even the lock fails."""
        await self.worker.run(self.enforcer.install, self._prefix)
        await self._restore()
        self._watch = LinkWatch(self._open_socket)
        for held in self.held.values():
            await self.listen(held)
        self._tasks = [asyncio.create_task(self._look_up()), asyncio.create_task(self._follow(self._watch))]

    async def close(self) -> None:
        """Let go of everything but the kernel's rules."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watch is not None:
            self._watch.close()
        for held in self.held.values():
            held.close()
        self.worker.close()
        self.enforcer.close()
        if self._store is not None:
            self._store.close()

    def turn(self, attachment_id: str) -> asyncio.Lock:
        """Changes of one attachment wait for each other; those of different attachments do not."""
        lock = self._turns.get(attachment_id)
        if lock is None:
            lock = self._turns[attachment_id] = asyncio.Lock()
        return lock

    def make(self, record: Record) -> Held:
        """Everything for an attachment, not yet held, locked and silent. Raises UserError ``bad-upstream``."""
        attachment_id = record.attachment.id

        async def learn(entries: Sequence[Learned]) -> None:
            await self.worker.run(self.enforcer.learn, attachment_id, entries)

        return hold(record, servers=self._upstreams, learn=learn, open_socket=self._open_socket, clock=self._clock)

    async def save(self) -> None:
        """Remember what is held now. Raises UserError ``state-not-saved``."""
        if self._store is not None:
            async with self._saving:
                await asyncio.to_thread(self._store.save, [held.record for held in self.held.values()])

    async def enforce(self, held: Held, resolution: Resolution) -> None:
        """Kernel and DNS gate change to the record's ruleset as one; then the known addresses are let in.

        Raises:
            UserError: the kernel refused; the former rules are in force.
        """
        record = held.record
        assert record.ruleset is not None
        async with held.service.hold():
            await self.worker.run(self.enforcer.apply, record.attachment, record.ruleset, record.dns_port)
            kept = held.core.adopt(NameView(record.ruleset))
            held.unresolved = tuple(sorted(resolution.unresolved))
            held.trouble.clear()
            await self._take_in(held, resolution, kept)

    async def listen(self, held: Held) -> None:
        """Open the DNS listeners as far as that is possible now. Only in the attachment's turn.

        Where their former port was taken meanwhile they have another, and the redirect in the kernel follows.
        """
        try:
            await held.listeners.open()
            port = held.listeners.choose_port()
            if port != held.record.dns_port:
                if held.ruleset is not None:
                    await self.worker.run(self.enforcer.apply, held.record.attachment, held.ruleset, port)
                held.record = replace(held.record, dns_port=port)
                await self.save()
        except UserError as error:
            if held.trouble.get("listen") != error.message:
                _log.warning("%s", error.message)
            held.trouble["listen"] = error.message
        else:
            held.trouble.pop("listen", None)

    async def _take_in(self, held: Held, resolution: Resolution, kept: Sequence[Learned] = ()) -> None:
        """Tell the kernel addresses that nobody has asked for yet. Only while the service is held."""
        core, view = held.core, held.core.view
        assert view is not None
        due, usable = list(kept), set()
        for found in resolution.answers:
            allowed = view.by_text(found.name)
            if allowed is not None:
                answer = core.prime(allowed, found.type, found.addresses, found.aliases, found.ttl)
                due += core.due_for(allowed, answer)
                usable |= {found.name} if answer.addresses else set()
        private = sorted({found.name for found in resolution.answers} - usable)
        if private:
            held.trouble["names"] = f"only addresses that are not public, so they stay closed: {', '.join(private)}"
        if not due:
            return
        # Of several lifetimes for one address the longest counts, in our table as in the kernel: it comes last.
        due.sort(key=lambda entry: entry.seconds)
        try:
            await self.worker.run(self.enforcer.learn, held.id, due)
        except UserError as error:
            # Each name still opens when it is asked for.
            held.trouble["learn"] = f"addresses could not be let in beforehand: {error.message}"
        else:
            core.acknowledge(due)

    async def _restore(self) -> None:
        if self._store is None:
            return
        loaded = await asyncio.to_thread(self._store.load)
        self.problems += loaded.problems
        present = set(await self.worker.run(self.enforcer.attachments))
        await self._lock_strangers(present - {record.attachment.id for record in loaded.records})
        for record in loaded.records:
            why = f"{record.attachment.name} could not be restored and is locked"
            try:
                held = self.make(record)
            except UserError as error:
                self.problems.append(f"{why}: {error.message}")
                held = self.make(Record(record.attachment))
            self.held[held.id] = held
            try:
                await self._restore_one(held, held.id in present)
            except UserError as error:
                self.problems.append(f"{why}: {error.message}")
        for problem in self.problems:
            _log.error("%s", problem)

    async def _restore_one(self, held: Held, in_kernel: bool) -> None:
        """As it was; where the kernel has its rules still, in place, so that live connections go on."""
        attachment, ruleset = held.record.attachment, held.record.ruleset
        if ruleset is None or not in_kernel:
            await self.worker.run(self.enforcer.attach, attachment, held.record.dns_port)
        if ruleset is None:
            return
        try:
            await self.enforce(held, _NOTHING)
            alive = await self.worker.run(self.enforcer.learned, held.id)
            held.core.table.found(alive, self._clock.monotonic())
        except UserError:
            held.core.adopt(None)
            await self.worker.run(self.enforcer.attach, attachment, held.record.dns_port)
            raise
        _log.info("restored %s (%s)", attachment.name, held.id)

    async def _lock_strangers(self, ids: set[str]) -> None:
        """Rules in the kernel that nobody here remembers: the base lock takes over, where there is one."""
        for stranger in sorted(ids):
            if self._prefix is None:
                self.problems.append(
                    f"the kernel holds rules of an unknown attachment {stranger}; they are left as they are"
                )
                continue
            self.problems.append(
                f"the kernel held rules of an unknown attachment {stranger}; its interface is locked now"
            )
            await self.worker.run(self.enforcer.detach, stranger)

    async def _look_up(self) -> None:
        """Resolve the names of what was restored: their addresses may have run out of the kernel while nobody was here."""
        for held in list(self.held.values()):
            ruleset = held.ruleset
            if ruleset is None:
                continue
            resolution = await resolved(ruleset, held.service.upstreams, _RESTORE_SECONDS)
            async with held.service.hold():
                if held.ruleset is ruleset:
                    held.unresolved = tuple(sorted(resolution.unresolved))
                    await self._take_in(held, resolution)

    async def _follow(self, watch: LinkWatch) -> None:
        """Keep the listeners open as interfaces come and go, for as long as the gate lives."""
        while True:
            await watch.changed(_LOOK)
            for held in list(self.held.values()):
                # Whoever has the turn opens the listeners too.
                turn = self.turn(held.id)
                if held.listeners.listening or turn.locked():
                    continue
                async with turn:
                    if self.held.get(held.id) is held:
                        await self.listen(held)


async def resolved(ruleset: Ruleset, upstreams: Upstreams, seconds: float) -> Resolution:
    """The names of a ruleset; none where the policy is off, for then nothing is learned."""
    if ruleset.mode == "off" or seconds <= 0:
        return _NOTHING
    return await resolve(ruleset.exact_names, upstreams, seconds=seconds)
