"""Drives a `DnsCore`: asks upstreams, tells the kernel, and only then replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from netpolicy.dns import wire
from netpolicy.dns.answers import Answer
from netpolicy.dns.core import DnsCore, Lookup, Ready, Relay
from netpolicy.dns.upstreams import UpstreamError, Upstreams
from netpolicy.dns.view import NameView
from netpolicy.errors import UserError
from netpolicy.ruleset import Learned

#: Questions of one workload that may wait at once; further ones get no answer until some are done.
_MOST_WAITING = 1024

Learn = Callable[[Sequence[Learned]], Awaitable[None]]


class DnsService:
    """The DNS gate of one attachment, without its sockets.

    Args:
        core: What decides.
        upstreams: Who is asked; may be replaced.
        learn: Tells the kernel; returns when it has acknowledged, raises UserError where it refused.
    """

    def __init__(self, core: DnsCore, upstreams: Upstreams, learn: Learn) -> None:
        self.core = core
        self.upstreams = upstreams
        self._learn = learn
        self._turn = asyncio.Lock()
        self._fetching: dict[tuple[bytes, int, NameView], asyncio.Task[Answer]] = {}
        self._waiting = 0

    def close(self) -> None:
        """Give up what is being asked."""
        for task in list(self._fetching.values()):
            task.cancel()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """While held nothing is learned: for changing the kernel's ruleset and the core's view as one."""
        async with self._turn:
            yield

    async def answer(self, data: bytes, *, udp: bool) -> bytes | None:
        """The reply to a query; None to stay silent."""
        step = self.core.ask(data, udp=udp)
        return step.wire if isinstance(step, Ready) else await self.finish(step, data)

    async def finish(self, step: Lookup | Relay, data: bytes) -> bytes | None:
        """The reply to a query that could not be answered at once."""
        if self._waiting >= _MOST_WAITING:
            return None
        self._waiting += 1
        try:
            return await self._finish(step, data)
        finally:
            self._waiting -= 1

    async def _finish(self, step: Lookup | Relay, data: bytes) -> bytes | None:
        current: Lookup | Relay | Ready = step
        while not isinstance(current, Ready):
            if isinstance(current, Relay):
                return await self._relay(current, data)
            try:
                answer = current.known or await self._fetch(current)
                if await self._open(current, answer):
                    return self.core.reply(current, answer)
            except UpstreamError as error:
                return self.core.failure(current, error.code, error.text)
            except UserError as error:
                return self.core.failure(current, wire.EDE_NOT_READY, f"the firewall did not open: {error.message}")
            # Another ruleset came into force meanwhile, by which the question must be judged again.
            current = self.core.judge(current.query, current.limit)
        return current.wire

    async def _open(self, lookup: Lookup, answer: Answer) -> bool:
        """Let the kernel know the answer's addresses; False where the question's ruleset is no longer in force."""
        async with self._turn:
            if self.core.view is not lookup.view:
                return False
            due = self.core.due(lookup, answer)
            if due:
                await self._learn(due)
                self.core.acknowledge(due)
            return True

    async def _fetch(self, lookup: Lookup) -> Answer:
        """Ask upstream; equal questions at the same time share one (and give an attacker one answer to guess, not many)."""
        key = (lookup.query.name, lookup.query.type, lookup.view)
        task = self._fetching.get(key)
        if task is None:
            task = self._fetching[key] = asyncio.create_task(self._ask(lookup))
            task.add_done_callback(lambda _done: self._fetching.pop(key))
        return await asyncio.shield(task)

    async def _ask(self, lookup: Lookup) -> Answer:
        exchange = await self.upstreams.ask(lookup.query.name, lookup.query.type)
        return self.core.digest(lookup, exchange.response)

    async def _relay(self, step: Relay, data: bytes) -> bytes:
        try:
            exchange = await self.upstreams.forward(data, step.query.name, step.query.type)
        except UpstreamError as error:
            if error.wire is not None:
                return self.core.relayed(step, error.wire)
            return self.core.failure(step, error.code, error.text)
        return self.core.relayed(step, exchange.wire)
