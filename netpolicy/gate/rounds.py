"""What the gate looks after by itself: rules that end, changes that nobody confirms, rules that another program has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from netpolicy.errors import UserError
from netpolicy.gate.held import Held
from netpolicy.gate.keeper import Keeper
from netpolicy.gate.protocol import Drift, DriftAction
from netpolicy.gate.watch import LinkWatch

_log = logging.getLogger("netpolicy.gate")
#: Seconds between two rounds.
PAUSE = 0.5
#: Seconds after which listeners are looked at even if no change of links was announced.
_LOOK = 2.0


class Rounds:
    """Goes round what a keeper holds. An attachment that is being changed is left for the next round."""

    def __init__(self, keeper: Keeper) -> None:
        self._keep = keeper
        self._owed: dict[str, _Owed] = {}
        """Attachments whose rules were changed by another program and are not put right yet."""
        self._broken = False
        """What all attachments share is to be put right, too."""
        self._failure = ""

    async def run(self) -> None:
        """Go round for as long as the gate lives."""
        while True:
            await self.once()
            await asyncio.sleep(PAUSE)

    async def once(self) -> None:
        """One round."""
        for held in list(self._keep.held.values()):
            if held.overdue or held.ended:
                await self._in_turn(held, self._in_time)
        await self._look_for_drift()
        for held in list(self._keep.held.values()):
            if held.id in self._owed:
                await self._in_turn(held, self._put_right)

    async def follow(self, watch: LinkWatch) -> None:
        """Keep the DNS listeners open as interfaces come and go."""
        while True:
            await watch.changed(_LOOK)
            for held in list(self._keep.held.values()):
                # Whoever has the turn opens the listeners too.
                if not held.listeners.listening:
                    await self._in_turn(held, self._keep.listen)

    async def _in_turn(self, held: Held, step: Callable[[Held], Awaitable[None]]) -> None:
        turn = self._keep.turn(held.id)
        if turn.locked():
            return
        async with turn:
            if self._keep.held.get(held.id) is held:
                await step(held)

    async def _in_time(self, held: Held) -> None:
        """Go back where nobody has confirmed, and leave out the rules that have ended: flows of theirs are cut."""
        name = held.record.attachment.name
        if held.overdue:
            try:
                await self._keep.go_back(held)
            except UserError as error:
                _complain(held, "confirm", f"{name} cannot go back to what was in force before: {error.message}")
        if held.ended:
            try:
                await self._keep.enforce(held, None)
            except UserError as error:
                _complain(held, "end", f"rules of {name} have ended and cannot be taken away: {error.message}")
            else:
                held.verification = None
                _log.info("rules of %s have ended (%s)", name, held.id)

    async def _look_for_drift(self) -> None:
        keep = self._keep
        try:
            found = await keep.worker.run(keep.enforcer.drifted)
            if found:
                self._note("; ".join(found))
            if self._broken:
                # The base lock comes first: until each attachment has its rules again, nothing passes.
                await keep.worker.run(keep.enforcer.install, keep.prefix)
                self._broken = False
        except UserError as error:
            if error.message != self._failure:
                _log.error("the rules in the kernel cannot be looked after: %s", error.message)
            self._failure = error.message
        else:
            self._failure = ""

    def _note(self, what: str) -> None:
        if not self._broken:
            _log.warning("another program has changed the rules: %s", what)
        self._broken = True
        for held in self._keep.held.values():
            before = self._owed.get(held.id)
            times = before.times if before is not None else 1 + (0 if held.drift is None else held.drift.times)
            self._owed[held.id] = _Owed(what, times)

    async def _put_right(self, held: Held) -> None:
        """By the policy: the rules as they were, with what was learned; or nothing, until somebody applies again."""
        owed = self._owed.pop(held.id)
        try:
            action = await self._mend(held, owed)
        except UserError as error:
            self._owed[held.id], action = owed, "failed"
            _complain(held, "drift", f"the rules of {held.record.attachment.name} cannot be put right: {error.message}")
        else:
            held.trouble.pop("drift", None)
            _log.warning("%s: %s", held.record.attachment.name, action)
        held.drift = Drift(owed.times, owed.what, self._keep.clock.now(), action)

    async def _mend(self, held: Held, owed: _Owed) -> DriftAction:
        keep, ruleset = self._keep, held.ruleset
        if ruleset is not None and ruleset.on_drift == "repair":
            await keep.enforce(held, None)
            held.verification = None
            return "repaired"
        if ruleset is not None:
            why = f"locked, because another program changed the rules ({owed.what}): apply a policy to go on"
            held.record = replace(held.record, ruleset=None, unconfirmed=None, locked_by=why)
            await keep.save_anyway()
        await keep.lock(held)
        return "locked"


@dataclass(frozen=True, slots=True)
class _Owed:
    """Rules that are to be put right."""

    what: str
    times: int


def _complain(held: Held, subject: str, text: str) -> None:
    """Say it, once for each reason."""
    if held.trouble.get(subject) != text:
        _log.error("%s", text)
    held.trouble[subject] = text
