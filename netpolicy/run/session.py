"""The course of one run: lock, open, connect, start the command, wait, tell what was refused, take everything back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from netpolicy.clock import SystemClock
from netpolicy.errors import UserError
from netpolicy.gate.core import Gate
from netpolicy.kernel.backends import Backend, open_enforcer
from netpolicy.policy import Policy
from netpolicy.policy.suggestion import place
from netpolicy.ruleset import Ruleset
from netpolicy.run import confine, hostside, refused, signals, syscalls, uplink
from netpolicy.run.report import Report
from netpolicy.run.router import PREFIX, Router
from netpolicy.run.uplink import Kind, Reach, Uplink
from netpolicy.run.workload import Command, Workload

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds that the policy's names may take before the command starts; those that take longer resolve when they are asked for.
_RESOLVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run, and how."""

    argv: tuple[str, ...]
    ruleset: Ruleset
    upstreams: tuple[str, ...] | None
    """Resolvers to ask; None for those of the host's resolv.conf."""
    user: str | None
    uplink: Kind | None
    """None: the best there is."""
    backend: Backend = "auto"
    """What enforces the rules."""
    domains: str = "domains"
    """Where names are added to the policy, for people."""
    allow: str = "allow"
    """Where destinations are."""


def plan(
    policy: Policy,
    ruleset: Ruleset,
    argv: tuple[str, ...],
    *,
    user: str | None,
    wanted: Kind | None,
    backend: Backend = "auto",
) -> Plan:
    """Take from a policy what a run needs."""
    upstreams = policy.dns.upstream or None
    return Plan(argv, ruleset, upstreams, user, wanted, backend, _where(policy, "domains"), _where(policy, "allow"))


def _where(policy: Policy, key: str) -> str:
    file, whole = place(policy, key)
    return f"{whole} in {file}"


def run(wanted: Plan) -> Report:
    """Run the command to its end. To be called in the main thread of a process without other threads.

    Raises:
        UserError: the command was not started; nothing is left behind.
    """
    privileged = confine.may_change_networks()
    kind = uplink.choose(wanted.uplink, privileged=privileged)
    who = confine.identity(wanted.user)
    if not privileged and who.uid != os.getuid():
        raise confine.needs_root("to run the command as another user")
    with contextlib.ExitStack() as stack:
        if privileged:
            way = _host_side(stack, kind)
        else:
            confine.enter_user_namespace()
            way = _user_side(kind, as_root=False)
        workload = Workload.fork(Command(wanted.argv, who, nested=not privileged))
        stack.callback(_end, workload)
        course = Course(wanted, way, workload, one_group=not privileged)
        # No thread exists yet; from here on there may be some.
        stack.enter_context(signals.given_to(course.take))
        return asyncio.run(course.run())


def _host_side(stack: contextlib.ExitStack, kind: Kind) -> Uplink:
    if kind != "host":
        return _user_side(kind, as_root=True)
    registry = hostside.Registry.of_this_namespace()
    stack.callback(os.close, hostside.watch_over(registry))
    from netpolicy.run.uplink_host import HostUplink

    return HostUplink(registry)


def _user_side(kind: Kind, *, as_root: bool) -> Uplink:
    from netpolicy.run.uplink_user import UserUplink

    return UserUplink(kind, as_root=as_root)


def _end(workload: Workload) -> None:
    workload.kill()
    workload.close()
    with contextlib.suppress(ChildProcessError):
        workload.reap()


class Course:
    """One run from the first lock to the last word."""

    def __init__(self, wanted: Plan, way: Uplink, workload: Workload, *, one_group: bool) -> None:
        self._wanted = wanted
        self._way = way
        self._workload = workload
        self._one_group = one_group
        self._clock = SystemClock()
        self._started = False
        self._stopped_by: int | None = None
        self._stop: Callable[[], object] = lambda: None

    def take(self, number: int, from_terminal: bool) -> None:
        """A signal has come: the command's business, or while there is none yet, the end of it all. Called in a thread."""
        if self._started:
            if not from_terminal:
                self._workload.signal(number)
        elif number != signal.SIGWINCH and self._stopped_by is None:
            self._stopped_by = number
            self._stop()

    async def run(self) -> Report:
        """See the module. Raises UserError."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            if self._stopped_by is not None:
                raise asyncio.CancelledError
            return await self._run()
        except asyncio.CancelledError:
            if self._stopped_by is None:
                raise
            raise UserError(
                "interrupted", "interrupted before the command was started", exit_status=128 + self._stopped_by
            ) from None

    async def _run(self) -> Report:
        wanted, way, workload = self._wanted, self._way, self._workload
        async with contextlib.AsyncExitStack() as stack:
            router = stack.enter_context(Router(one_group=self._one_group))
            attachment = router.attachment
            enforcer = await to_its_end(open_enforcer, wanted.backend, netns=router.router)
            gate = await stack.enter_async_context(Gate(enforcer, prefix=PREFIX, open_socket=router.socket))
            await gate.attach(attachment)
            await to_its_end(router.wire)
            stack.callback(way.close)
            connecting = asyncio.create_task(to_its_end(way.connect, router.router))
            stack.push_async_callback(_settled, connecting)
            await gate.apply(
                attachment.id, wanted.ruleset, upstreams=wanted.upstreams, resolve_seconds=_RESOLVE_SECONDS
            )
            reach = await connecting
            # Whoever could look into this process could take its descriptors of the namespaces.
            syscalls.set_dumpable(False)
            begin = self._clock.monotonic()
            workload.start(router.workload, router.resolver)
            self._started = True
            await to_its_end(workload.confirm)
            status = await _ended(workload)
            shown = await gate.show(attachment.id)
            ruleset = shown.ruleset or wanted.ruleset
            return Report(
                command=wanted.argv,
                status=status,
                seconds=self._clock.monotonic() - begin,
                uplink=way.kind,
                reach=str(reach),
                state=shown.state,
                denied=refused.names({**shown.denied, **shown.observed}, ruleset),
                refused=refused.explained(shown.refusals, ruleset, shown.learned, attachment),
                backend=enforcer.backend,
                domains=wanted.domains,
                allow=wanted.allow,
                notes=_notes(wanted.ruleset, reach),
            )


async def to_its_end(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call it in a thread. When we are cancelled it goes on to its end first: only then can what it makes be taken back."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await _settled(work)
        raise


async def _settled(work: asyncio.Future[Any]) -> None:
    """Wait until it has ended, however."""
    await asyncio.wait([work])
    if not work.cancelled():
        work.exception()


async def _ended(workload: Workload) -> int:
    """Wait for the command while the gate goes on answering."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    descriptor = os.pidfd_open(workload.pid)
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return workload.reap()


def _notes(ruleset: Ruleset, reach: Reach) -> tuple[str, ...]:
    notes = []
    if not (reach.v4 or reach.v6):
        notes.append("the host has no default route, so nothing outside could be reached")
    if ruleset.host:
        notes.append("host_access has no effect here: the command's gateway is the firewall, not the host")
    if not Path("/etc/resolv.conf").exists():
        notes.append("there is no /etc/resolv.conf here, so the command could not resolve names")
    return tuple(notes)
