"""What a gate that starts again does with what it remembers and what the kernel still holds: in force again, or locked."""

from __future__ import annotations

import asyncio
import logging

from netpolicy.errors import UserError
from netpolicy.gate.admission import at_home
from netpolicy.gate.held import Held
from netpolicy.gate.keeper import Keeper
from netpolicy.gate.state import Record
from netpolicy.resolve import Resolution

_log = logging.getLogger("netpolicy.gate")


async def restore(keep: Keeper) -> None:
    """Put back all that was remembered. What cannot be is locked, and said in `Keeper.problems`."""
    if keep.store is None:
        return
    loaded = await asyncio.to_thread(keep.store.load)
    keep.problems += loaded.problems
    present = set(await keep.worker.run(keep.enforcer.attachments))
    await _lock_strangers(keep, present - {record.attachment.id for record in loaded.records})
    for record in loaded.records:
        await _restore(keep, record, record.attachment.id in present)
    if any(keep.held[record.attachment.id].record != record for record in loaded.records):
        await keep.save_anyway()
    for problem in keep.problems:
        _log.error("%s", problem)


async def look_up_all(keep: Keeper) -> None:
    """Resolve the names of what was restored, one attachment after the other."""
    for held in list(keep.held.values()):
        await keep.look_up(held)


async def _restore(keep: Keeper, remembered: Record, in_kernel: bool) -> None:
    pending = remembered.unconfirmed
    overdue = pending is not None and pending.left(keep.clock.now()) <= 0
    record = remembered.back() if overdue else remembered
    why = f"{record.attachment.name} could not be restored and is locked"
    try:
        held = keep.make(record)
    except UserError as error:
        keep.problems.append(f"{why}: {error.message}")
        held = keep.make(Record(record.attachment))
    keep.held[held.id] = held
    try:
        await _put_back(keep, held, in_kernel)
    except UserError as error:
        keep.problems.append(f"{why}: {error.message}")
    held.ask()
    if overdue:
        keep.rolled_back(held, remembered)


async def _put_back(keep: Keeper, held: Held, in_kernel: bool) -> None:
    """As it was; where the kernel has its rules still, in place, so that live connections go on."""
    if held.record.ruleset is None or not in_kernel:
        await keep.lock(held)
    if held.record.ruleset is None:
        return
    try:
        await keep.enforce(held, Resolution((), {}))
        alive = await keep.worker.run(keep.enforcer.learned, held.id)
        held.core.table.found(alive, keep.clock.monotonic())
    except UserError:
        await keep.lock(held)
        raise
    _log.info("restored %s (%s)", held.record.attachment.name, held.id)


async def _lock_strangers(keep: Keeper, ids: set[str]) -> None:
    """Rules in the kernel that nobody here remembers: the base lock takes over, where it is sure to be one.

    It is not for the processes of a namespace itself, which only a gate elsewhere judges: taking their rules away would open.
    """
    lock = keep.prefix is not None and at_home(keep)
    for stranger in sorted(ids):
        rules = f"rules of an unknown attachment {stranger}"
        if lock:
            keep.problems.append(f"the kernel held {rules}; its interface is locked now")
            await keep.worker.run(keep.enforcer.detach, stranger)
        else:
            keep.problems.append(f"the kernel holds {rules}; they are left as they are")
