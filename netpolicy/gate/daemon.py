"""The process of ``netpolicy gate serve``: a gate, its control socket, and the signals that end it."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import resource
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from netpolicy.dns.servers import Server
from netpolicy.errors import Exit, UserError
from netpolicy.gate.core import Gate
from netpolicy.gate.server import ControlServer
from netpolicy.gate.state import StateStore
from netpolicy.kernel import netns
from netpolicy.kernel.backends import BACKENDS, Backend, open_enforcer, remove
from netpolicy.kernel.claim import Claim

_log = logging.getLogger("netpolicy.gate")
#: How rarely Python looks for garbage in cycles, of which we make little: with a hundred rulesets in memory it takes a tenth of a
#: second each time, for which every workload waits.
_COLLECT = (10_000, 10, 20)


async def serve(
    *,
    control: Path,
    state: Path,
    prefix: str | None,
    table: str,
    upstreams: Sequence[str],
    version: str,
    namespace: str | None = None,
    backend: Backend = "auto",
) -> int:
    """Run until SIGTERM or SIGINT; the kernel's rules stay in force. Returns the exit status.

    With `namespace` the rules and the DNS gate are in that network namespace, while resolvers are asked from our own.

    Raises:
        UserError: it could not be started: ``gate-running``, ``state-directory``, ``bad-socket``, ``bad-upstream``, ``kernel-refused``...
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    gc.set_threshold(*_COLLECT)
    servers = tuple(Server.parse(text) for text in upstreams)
    with _opened(namespace) as place, claim(table, place):
        store = StateStore(state)
        enforcer = open_enforcer(backend, table=table, netns=place)
        gate = Gate(
            enforcer,
            prefix=prefix,
            upstreams=(lambda: servers) if servers else None,
            store=store,
            open_socket=functools.partial(netns.socket_in, place),
            version=version,
        )
        async with gate:
            # Only now: everything is locked or enforced by the backend that was chosen.
            held = [state.attachment.id for state in (await gate.status()).attachments]
            # What has the prefix is locked whether or not it is remembered.
            only = held if prefix is None else None
            await asyncio.to_thread(_succeed, enforcer.backend, table, place, only)
            server = ControlServer(gate, control)
            try:
                await server.start()
                interfaces = "no interface locked by its name" if prefix is None else f"interfaces {prefix}*"
                _log.info("ready: control socket %s, table %s (%s), %s", control, table, enforcer.backend, interfaces)
                await ended.wait()
                _log.info("stopping; the rules stay in force")
            finally:
                await server.close()
    return Exit.OK


def _succeed(backend: str, table: str, place: netns.Namespace, only: Collection[str] | None) -> None:
    """Take away what a gate with another backend has left in the kernel.

    Its rules would go on refusing, and would know nothing of the names that are looked up now.
    """
    for former in BACKENDS:
        if former in ("auto", backend):
            continue
        try:
            unknown = remove(former, table=table, netns=place, only=only)
        except UserError as error:
            # Most hosts have not what that backend needs, and so have no rules of it; else somebody must know.
            level = logging.DEBUG if error.code == "kernel-missing" else logging.WARNING
            _log.log(level, "rules of %s, if there are any, go on refusing: %s", former, error.message)
        else:
            if unknown:
                known = ", ".join(unknown)
                _log.warning(
                    "%s holds rules of unknown attachments (%s); all of its rules are left as they are", former, known
                )


@contextmanager
def _opened(namespace: str | None) -> Iterator[int | None]:
    """Hold the namespace open: its path may be that of a process, which may end."""
    if namespace is None:
        yield None
        return
    descriptor = netns.open_namespace(namespace)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def claim(table: str, place: netns.Namespace) -> Iterator[None]:
    """Be the only gate of this network namespace that keeps the table: a second one would lock what the first one holds.

    Raises:
        UserError: ``gate-running``.
    """
    own = Claim(f"netpolicy-gate/{table}", place)
    if not own.take():
        raise UserError(
            "gate-running",
            f"another gate keeps the table {table} in this network namespace",
            hint="Talk to that one, or name another table with --table.",
            exit_status=Exit.CONFLICT,
        )
    try:
        yield
    finally:
        own.release()


def run(
    *,
    control: Path,
    state: Path,
    prefix: str | None,
    table: str,
    upstreams: Sequence[str],
    version: str,
    namespace: str | None = None,
    backend: Backend = "auto",
) -> int:
    """`serve` as a whole process: with logging to standard error, and room for many sockets."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return asyncio.run(
        serve(
            control=control,
            state=state,
            prefix=prefix,
            table=table,
            upstreams=upstreams,
            version=version,
            namespace=namespace,
            backend=backend,
        )
    )
