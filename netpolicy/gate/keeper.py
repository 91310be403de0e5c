"""Keeps attachments: remembers them, puts their rulesets in force, locks them, goes back, listens for them.

The steps behind `core.Gate`, `restoring` and `rounds`, each sound by itself: a change is remembered before the kernel is asked for
it, the kernel and the DNS gate change together, and what fails leaves things as they were or locked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from netpolicy.attachment import Enforcer
from netpolicy.clock import Clock
from netpolicy.dns.listeners import SocketFactory
from netpolicy.dns.servers import ServerList
from netpolicy.dns.upstreams import Upstreams
from netpolicy.dns.view import NameView
from netpolicy.errors import UserError
from netpolicy.gate.held import Held, chosen, hold
from netpolicy.gate.state import Record, StateStore
from netpolicy.gate.worker import Worker
from netpolicy.resolve import Resolution, resolve
from netpolicy.ruleset import Learned, Ruleset

_log = logging.getLogger("netpolicy.gate")
#: Seconds that the names of a ruleset may take which nobody waits for.
_LOOK_UP_SECONDS = 3.0
_NOTHING = Resolution((), {})


class Keeper:
    """What the gate holds, by attachment id; see `core.Gate` for the arguments."""

    def __init__(
        self,
        enforcer: Enforcer,
        *,
        prefix: str | None,
        upstreams: ServerList,
        store: StateStore | None,
        clock: Clock,
        open_socket: SocketFactory,
    ) -> None:
        self.enforcer = enforcer
        self.prefix = prefix
        self.store = store
        self.clock = clock
        self.open_socket = open_socket
        self.worker = Worker("netpolicy-kernel")
        self.held: dict[str, Held] = {}
        self.problems: list[str] = []
        self._upstreams = upstreams
        self._saving = asyncio.Lock()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let go of everything but the kernel's rules."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for held in self.held.values():
            held.close()
        self.worker.close()
        self.enforcer.close()
        if self.store is not None:
            self.store.close()

    def task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else, until it ends or the gate does."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

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

        return hold(record, servers=self._upstreams, learn=learn, open_socket=self.open_socket, clock=self.clock)

    async def save(self) -> None:
        """Remember what is held now. Raises UserError ``state-not-saved``."""
        if self.store is not None:
            async with self._saving:
                await asyncio.to_thread(self.store.save, [held.record for held in self.held.values()])

    async def save_anyway(self) -> None:
        """Remember what is held now, where a failure has no one to be told to, or is already on its way to the caller."""
        with suppress(UserError):
            await self.save()

    async def enforce(self, held: Held, resolution: Resolution | None) -> None:
        """Kernel and DNS gate change to what the record's ruleset is now, as one; then the known addresses are let in.

        Args:
            held: Its record has a ruleset.
            resolution: The names that were looked up before; None where it is the ruleset that was in force already.

        Raises:
            UserError: the kernel refused; the former rules are in force.
        """
        record = held.record
        assert record.ruleset is not None
        ruleset = record.ruleset.at(self.clock.now())
        # In a thread: with thousands of names it takes longer than others should wait for their DNS.
        view = await asyncio.to_thread(NameView, ruleset)
        async with held.service.hold():
            await self.worker.run(self.enforcer.apply, record.attachment, ruleset, record.dns_port)
            kept = held.adopt(ruleset, view)
            still = {"listen"} if resolution is not None else {"listen", "names"}
            held.trouble = {subject: text for subject, text in held.trouble.items() if subject in still}
            if resolution is not None:
                held.unresolved = tuple(sorted(resolution.unresolved))
            held.unresolved = tuple(name for name in held.unresolved if ruleset.knows(name))
            await self._take_in(held, resolution or _NOTHING, kept)

    async def lock(self, held: Held) -> None:
        """Nothing passes any more. Raises UserError where the kernel refuses; then things are as they were."""
        async with held.service.hold():
            await self.worker.run(self.enforcer.attach, held.record.attachment, held.record.dns_port)
            held.lock()

    async def go_back(self, held: Held) -> None:
        """To what was in force before something that nobody confirmed. Only in the attachment's turn.

        Raises:
            UserError: the kernel refused; it remains to be done.
        """
        unconfirmed = held.record
        held.record = unconfirmed.back()
        # If that is not remembered, the next start finds the deadline passed, and does it again.
        await self.save_anyway()
        try:
            if held.record.ruleset is None:
                await self.lock(held)
            else:
                await self.enforce(held, _NOTHING)
        except UserError:
            held.record = unconfirmed
            await self.save_anyway()
            raise
        held.service.upstreams = Upstreams(chosen(held.record.upstreams, self._upstreams))
        held.verification, held.deadline = None, None
        self.rolled_back(held, unconfirmed)
        if held.ruleset is not None:
            self.task(self.look_up(held))

    def rolled_back(self, held: Held, unconfirmed: Record) -> None:
        """Say that it happened."""
        policy = "?" if unconfirmed.ruleset is None else unconfirmed.ruleset.policy
        what = "locked again" if held.record.ruleset is None else f"back at {held.record.ruleset.policy}"
        held.trouble["confirm"] = f"{policy} was not confirmed in time: {held.record.attachment.name} is {what}"
        _log.warning("%s", held.trouble["confirm"])

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

    async def look_up(self, held: Held) -> None:
        """Resolve the names of what is in force again: their addresses may have run out of the kernel meanwhile."""
        ruleset = held.ruleset
        if ruleset is None:
            return
        resolution = await resolved(ruleset, held.service.upstreams, _LOOK_UP_SECONDS)
        async with held.service.hold():
            if held.ruleset is ruleset:
                held.unresolved = tuple(sorted(resolution.unresolved))
                await self._take_in(held, resolution)

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
        closed = sorted({found.name for found in resolution.answers} - usable)
        if closed:
            held.trouble["names"] = (
                f"only addresses that are not public or denied, so they stay closed: {', '.join(closed)}"
            )
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

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("a task of the gate ended by a defect", exc_info=error)
            self.problems.append(f"a defect ended a part of the gate, which should be restarted: {error!r}")


async def resolved(ruleset: Ruleset, upstreams: Upstreams, seconds: float) -> Resolution:
    """The names of a ruleset; none where the policy is off, for then nothing is learned."""
    if ruleset.mode == "off" or seconds <= 0:
        return _NOTHING
    names = await asyncio.to_thread(lambda: ruleset.exact_names)
    return await resolve(names, upstreams, seconds=seconds, ipv6=ruleset.ipv6)
