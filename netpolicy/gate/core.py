"""The gate without a socket: holds rulesets in force on attachments, across its own restarts, and answers for them.

    async with Gate(enforcer, prefix="csp-", store=StateStore(directory)) as gate:
        await gate.attach(attachment)                  # locked
        state = await gate.apply(attachment.id, ruleset)

Starting: the base lock first, then what was remembered, then the DNS listeners. Closing leaves the kernel as it is: what is
closed stays closed, what is allowed stays allowed until its addresses run out. Nothing that fails opens anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from netpolicy.attachment import Attachment, Enforcer
from netpolicy.clock import Clock, SystemClock
from netpolicy.decide import decide
from netpolicy.dns.listeners import SocketFactory
from netpolicy.dns.servers import ResolvConf, ServerList
from netpolicy.dns.upstreams import Upstreams
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Flow, Identity, Layer, Verdict
from netpolicy.gate.admission import admit
from netpolicy.gate.forms import Json
from netpolicy.gate.held import Held, chosen
from netpolicy.gate.keeper import Keeper, resolved
from netpolicy.gate.protocol import FORMAT, Hello, Shown, State, Status
from netpolicy.gate.restoring import look_up_all, restore
from netpolicy.gate.rounds import Rounds
from netpolicy.gate.state import Record, StateStore, Unconfirmed
from netpolicy.gate.watch import LinkWatch
from netpolicy.ruleset import Ruleset

_log = logging.getLogger("netpolicy.gate")
#: Longest time that names may take before a ruleset is applied, whatever the caller asks for.
_MOST_RESOLVE_SECONDS = 60.0
#: Longest time that a change may wait for its confirmation.
_MOST_CONFIRM_SECONDS = 86400.0


class Gate:
    """Attachments and their rulesets. Operations raise `UserError` and then have opened nothing.

    Args:
        enforcer: Where packets are filtered. The gate closes it.
        prefix: Interfaces whose names begin so are locked from the start, attached or not, and only such ones may be attached.
            None: no such lock; an interface is locked from its attachment on.
        upstreams: The resolvers to ask where an attachment names none of its own; by default those of resolv.conf.
        store: What remembers attachments across restarts; None for a gate that lives no longer than its process.
        clock: The time.
        open_socket: Makes the sockets that workloads reach; a gate for another namespace brings its own.
        version: For `hello`.
    """

    def __init__(
        self,
        enforcer: Enforcer,
        *,
        prefix: str | None = "csp-",
        upstreams: ServerList | None = None,
        store: StateStore | None = None,
        clock: Clock | None = None,
        open_socket: SocketFactory = socket.socket,
        version: str = "",
    ) -> None:
        self._version = version
        self._upstreams = upstreams or ResolvConf()
        self._clock = clock or SystemClock()
        self._started_at = self._clock.now()
        self._keep = Keeper(
            enforcer,
            prefix=prefix,
            upstreams=self._upstreams,
            store=store,
            clock=self._clock,
            open_socket=open_socket,
        )
        self._rounds = Rounds(self._keep)
        self._watch: LinkWatch | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.close)
            await self.start()
            undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Lock, restore, listen. Raises UserError where the kernel refuses even the base lock."""
        keep = self._keep
        await keep.worker.run(keep.enforcer.install, keep.prefix)
        await restore(keep)
        self._watch = LinkWatch(keep.open_socket)
        for held in keep.held.values():
            await keep.listen(held)
        keep.task(look_up_all(keep))
        keep.task(self._rounds.run())
        keep.task(self._rounds.follow(self._watch))

    async def close(self) -> None:
        """Stop answering. The kernel's rules stay in force."""
        await self._keep.close()
        if self._watch is not None:
            self._watch.close()

    def hello(self) -> Hello:
        """Who this is."""
        upstreams = tuple(str(server) for server in self._upstreams())
        keep = self._keep
        return Hello(self._version, FORMAT, os.getpid(), keep.prefix, upstreams, keep.enforcer.backend)

    async def attach(self, attachment: Attachment) -> State:
        """Lock an interface, whatever was in force on it: nothing passes until a ruleset is applied.

        Raises:
            UserError: ``bad-attachment``, ``interface-taken``, ``state-not-saved``, ``kernel-refused``.
        """
        keep = self._keep
        admit(attachment, keep)
        async with keep.turn(attachment.id):
            before = keep.held.get(attachment.id)
            held = keep.make(Record(attachment, dns_port=None if before is None else before.record.dns_port))
            with suppress(UserError):  # where no port is free, `listen` says so
                # Chosen now, it is remembered together with the attachment.
                held.record = replace(held.record, dns_port=held.listeners.choose_port())
            keep.held[attachment.id] = held
            try:
                await keep.save()
                await keep.worker.run(keep.enforcer.attach, attachment, held.record.dns_port)
            except UserError:
                if before is None:
                    del keep.held[attachment.id]
                else:
                    keep.held[attachment.id] = before
                await keep.save_anyway()
                raise
            if before is not None:
                before.close()
            await keep.listen(held)
            _log.info("locked %s (%s, %s)", attachment.name, attachment.id, attachment.interface)
            return await self._state(held)

    async def apply(
        self,
        attachment_id: str,
        ruleset: Ruleset,
        *,
        upstreams: Sequence[str] | None = None,
        resolve_seconds: float = 3.0,
        confirm_seconds: float | None = None,
    ) -> State:
        """Put a ruleset in force: resolve its names first (as far as that succeeds), then change the kernel in one step.

        Rules that have ended are left out; those that end later are left out when they do.

        Args:
            attachment_id: A locked or enforced attachment.
            ruleset: What its workload may reach.
            upstreams: Resolvers to ask for this workload, ``address`` or ``address:port``; None for the gate's own.
            resolve_seconds: How long to wait for the names; those that take longer are listed as unresolved.
            confirm_seconds: Unless `confirm` comes within so many seconds from when it is in force, what was in force before
                (and was confirmed) comes back, whatever becomes of the caller or of this gate. None: it stays.

        Raises:
            UserError: ``not-attached``, ``bad-upstream``, ``bad-request``, ``dns-listen``, ``state-not-saved``, ``kernel-refused``.
        """
        keep = self._keep
        if confirm_seconds is not None and not 0 < confirm_seconds <= _MOST_CONFIRM_SECONDS:
            message = f"confirm_seconds is {confirm_seconds!r}, not between 0 and {_MOST_CONFIRM_SECONDS:g}"
            raise UserError("bad-request", message, exit_status=Exit.BAD_INPUT)
        async with keep.turn(attachment_id):
            held = self._find(attachment_id)
            servers = Upstreams(chosen(upstreams, self._upstreams))
            current = ruleset.at(self._clock.now())
            resolution = await resolved(current, servers, min(resolve_seconds, _MOST_RESOLVE_SECONDS))
            before, now = held.record, self._clock.now()
            held.record = replace(
                before,
                ruleset=ruleset,
                upstreams=None if upstreams is None else tuple(upstreams),
                dns_port=held.listeners.choose_port(),
                applied_at=now,
                unconfirmed=None if confirm_seconds is None else _way_back(held, now, confirm_seconds),
                locked_by=None,
            )
            try:
                await keep.save()
                await keep.enforce(held, resolution)
            except UserError:
                held.record = before
                await keep.save_anyway()
                raise
            held.service.upstreams = servers
            held.verification = None
            held.ask()
            await keep.listen(held)
            _log.info("applied %s to %s (%s)", ruleset.id, before.attachment.name, attachment_id)
            return await self._state(held)

    async def confirm(self, attachment_id: str) -> State:
        """Keep what was applied with `confirm_seconds`.

        Raises:
            UserError: ``not-attached``, ``nothing-to-confirm`` (it was not asked for, or it is too late), ``state-not-saved``.
        """
        keep = self._keep
        async with keep.turn(attachment_id):
            held = self._find(attachment_id)
            if held.deadline is None or held.overdue:
                raise UserError(
                    "nothing-to-confirm",
                    f"no change of {held.record.attachment.name} waits to be confirmed",
                    hint="If it was too late, what was in force before is back: apply the policy again.",
                    exit_status=Exit.CONFLICT,
                )
            before = held.record
            held.record = replace(before, unconfirmed=None)
            try:
                await keep.save()
            except UserError:
                held.record = before
                raise
            held.ask()
            _log.info("confirmed %s (%s)", held.record.attachment.name, attachment_id)
            return await self._state(held)

    async def detach(self, attachment_id: str) -> None:
        """Forget an attachment; its interface falls back to the base lock. One that is not attached is no error.

        Raises:
            UserError: ``state-not-saved``, ``kernel-refused``.
        """
        keep = self._keep
        async with keep.turn(attachment_id):
            await keep.worker.run(keep.enforcer.detach, attachment_id)
            held = keep.held.pop(attachment_id, None)
            if held is not None:
                held.close()
                await keep.save()
                _log.info("detached %s (%s)", held.record.attachment.name, attachment_id)

    async def status(self, attachment_id: str | None = None) -> Status:
        """The gate and all attachments, or one. Raises UserError ``not-attached``."""
        wanted = list(self._keep.held.values()) if attachment_id is None else [self._find(attachment_id)]
        states = await self._states(wanted)
        return Status(self.hello(), self._started_at, tuple(self._keep.problems), states)

    async def show(self, attachment_id: str) -> Shown:
        """One attachment in full. Raises UserError ``not-attached``."""
        keep, held = self._keep, self._find(attachment_id)
        return Shown(
            held.ruleset,
            tuple(held.learned()),
            await self._state(held),
            self.denied(attachment_id),
            _by_times(held.core.observed),
            tuple(await keep.worker.run(keep.enforcer.refusals, attachment_id)),
        )

    async def check(self, attachment_id: str, flow: Flow) -> Verdict:
        """What would happen to a flow now. Raises UserError ``not-attached``."""
        held = self._find(attachment_id)
        attachment = held.record.attachment
        if held.ruleset is None:
            why = f"no policy has been applied to {attachment.name} yet, so everything is refused"
            return Verdict(False, Layer.LOCAL, None, Identity.NONE, why)
        # A thread: the first question to a big ruleset builds its index.
        ruleset = held.ruleset.at(self._clock.now())
        return await asyncio.to_thread(decide, ruleset, flow, held.learned(), attachment=attachment)

    def denied(self, attachment_id: str) -> dict[str, int]:
        """Names that the workload asked for and the policy does not list, the most frequent first. Raises UserError ``not-attached``."""
        return _by_times(self._find(attachment_id).core.denied)

    async def verified(self, attachment_id: str, ruleset_id: str, report: Json) -> State:
        """Store a verification report of the ruleset in force.

        Raises:
            UserError: ``not-attached``, or ``stale-verification``: another ruleset (or none) is in force by now.
        """
        async with self._keep.turn(attachment_id):
            held = self._find(attachment_id)
            current = None if held.ruleset is None else held.ruleset.id
            if current != ruleset_id:
                raise UserError(
                    "stale-verification",
                    f"ruleset {ruleset_id} was verified, but {current or 'none'} is in force on {attachment_id}",
                    hint="Verify again.",
                    exit_status=Exit.CONFLICT,
                )
            held.verification = report
            return await self._state(held)

    def _find(self, attachment_id: str) -> Held:
        held = self._keep.held.get(attachment_id)
        if held is None:
            raise UserError(
                "not-attached",
                f"nothing is attached as {attachment_id!r}",
                hint="Attach it first; 'netpolicy gate call status' lists what is.",
                exit_status=Exit.CONFLICT,
            )
        return held

    async def _state(self, held: Held) -> State:
        return (await self._states([held]))[0]

    async def _states(self, wanted: Sequence[Held]) -> tuple[State, ...]:
        one = wanted[0].id if len(wanted) == 1 else None
        refused = await self._keep.worker.run(self._keep.enforcer.refused, one)
        return tuple(held.state(refused[held.id].packets if held.id in refused else 0) for held in wanted)


def _way_back(held: Held, now: float, seconds: float) -> Unconfirmed:
    """To what was in force and confirmed."""
    former = held.record.unconfirmed or held.record
    ruleset = None if held.ruleset is None else former.ruleset
    return Unconfirmed(ruleset, former.upstreams, former.applied_at, now + seconds, seconds)


def _by_times(names: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(names.items(), key=lambda row: -row[1]))
