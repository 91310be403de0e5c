"""The gate's container: one for each Docker host, on the host's network, with NET_ADMIN and nothing else.

(With ipset it has NET_RAW, too: iptables' match for sets asks the kernel about them through a raw socket.)

The kernel holds the rules, not the container: while the gate is replaced, restarted or dead, what was denied stays denied and
established flows go on; only names are not answered. So replacing it (another version, other settings) is safe at any time.

A host firewall that drops what comes from bridges to the host itself (ufw does) also drops the questions to the gate's DNS. A
probe for that, and the one accept that mends it, belong beside `GateHandle` when ``cspace doctor`` learns to look for it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.gate.client import GateClient
from netpolicy.gate.protocol import Hello
from sidecars.engine import CONTENT, ROLE, VERSION, ContainerInfo, ContainerSpec, Engine, ImageInfo, Mount
from sidecars.images import GATE, BuildOptions
from sidecars.images import ensure as ensure_image
from sidecars.images.recipe import our_version
from sidecars.journal import Journal, Key
from sidecars.progress import Reporter, Step, silent
from sidecars.relayed import SOCKET, relayed
from sidecars.watched import Watched

NAME = "cspace-gate"
PREFIX = "csp-"
#: What filters packets (docs/backends.md).
Backend = Literal["auto", "nftables", "ipset"]
STATE = "/var/lib/netpolicy"
#: Label with the gate's name, so that containers of a replacement that was cut short are found.
GATE_LABEL = "cspace.gate"
HELLO_SECONDS = 30.0
STOP_SECONDS = 5
_LOCK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class GateHandle:
    """A gate that runs."""

    engine: Engine
    name: str
    container: str
    """Its container's id."""
    hello: Hello
    """What it said when it was found or started."""

    @contextmanager
    def client(self, *, seconds: float = 120.0) -> Iterator[GateClient]:
        """A conversation with the gate; `seconds` is the longest wait for one answer.

        Raises:
            UserError: ``gate-gone``, ``not-running``, ``container-missing``.
        """
        with relayed(self.engine, self.container, seconds) as client:
            yield client

    def logs(self, lines: int = 100) -> str:
        """The last lines that the gate printed."""
        return self.engine.containers.logs(self.container, lines)


def ensure(
    engine: Engine,
    reporter: Reporter = silent,
    *,
    upstreams: Sequence[str] = (),
    prefix: str = PREFIX,
    backend: Backend = "auto",
    name: str = NAME,
    options: BuildOptions | None = None,
    older: Callable[[str], object] | None = None,
    clock: Clock | None = None,
) -> GateHandle:
    """Have the gate running as it should be: built, started, replaced where its image or settings have changed.

    Args:
        engine: The Docker host it guards.
        reporter: Told each step.
        upstreams: Resolvers to ask, ``address`` or ``address:port``; none for those of the host.
        prefix: Interfaces whose names begin so are locked until a policy is applied.
        backend: What filters packets.
        name: Of the container; its volume is ``NAME-state``.
        options: How its image is built.
        older: As with `sidecars.images.ensure`.
        clock: For tests.

    Raises:
        UserError: ``gate-failed`` with the gate's last words; or as `sidecars.images.ensure` does.
    """
    clock = clock or SystemClock()
    image = ensure_image(engine, GATE, reporter, options, older=older, clock=clock)
    spec = _spec(name, image, upstreams, prefix, backend)
    waiting = Step("gate", "waiting for another program that is starting the gate")
    lock = Journal().lock(Key(str(engine.address), "gate", name), seconds=_LOCK_SECONDS,
                          waiting=lambda _holder: reporter(waiting))  # fmt: skip
    with lock:
        found = _tidied(engine, name)
        if found is not None and found.labels.get(CONTENT) == spec.labels[CONTENT]:
            if not found.running:
                reporter(Step("gate", f"starting {name}"))
                engine.containers.start(found.id)
            return GateHandle(engine, name, found.id, _greeted(engine, found.id, reporter, clock))
        return _replaced(engine, found, spec, reporter, clock)


def remove(engine: Engine, name: str = NAME, *, state: bool = False) -> bool:
    """Remove the gate; the rules it has put into the kernel stay in force. With `state`, forget the attachments too."""
    found = [engine.containers.remove(c.id) for c in engine.containers.list({ROLE: "gate", GATE_LABEL: name})]
    if state:
        engine.volumes.remove(f"{name}-state")
    return any(found)


def find(engine: Engine, name: str = NAME) -> ContainerInfo | None:
    """The gate's container as it is, running or not; None where there is none."""
    found = engine.containers.get(name)
    return found if found is not None and found.labels.get(ROLE) == "gate" else None


@contextmanager
def conversation(engine: Engine, container: ContainerInfo, *, seconds: float = 30.0) -> Iterator[GateClient]:
    """A conversation with the gate that `find` has found; starts and checks nothing.

    Raises:
        UserError: ``gate-gone``, ``gate-unreachable``, ``not-running``.
    """
    with relayed(engine, container.id, seconds) as client:
        yield client


def _spec(name: str, image: ImageInfo, upstreams: Sequence[str], prefix: str, backend: Backend) -> ContainerSpec:
    command = ["netpolicy", "gate", "serve", "--socket", SOCKET, "--state", STATE, "--prefix", prefix]
    command += ["--backend", backend]
    for upstream in upstreams:
        command += ["--upstream", upstream]
    labels = {ROLE: "gate", VERSION: our_version(), GATE_LABEL: name}
    spec = ContainerSpec(
        name=name,
        image=GATE.name,
        labels=labels,
        command=command,
        network="host",
        cap_drop=("ALL",),
        cap_add=("NET_ADMIN", "NET_RAW") if backend == "ipset" else ("NET_ADMIN",),
        security_options=("no-new-privileges",),
        read_only=True,
        tmpfs={"/run": "rw,nosuid,nodev,noexec,mode=0755,size=16m", "/tmp": "rw,nosuid,nodev,noexec,size=16m"},
        mounts=(Mount(STATE, f"{name}-state"),),
        init=True,
        restart="unless-stopped",
    )
    # The image by what it is, not by its name: a rebuilt one has the same.
    definition = json.dumps([image.id, spec.document()], sort_keys=True)
    labels[CONTENT] = hashlib.sha256(definition.encode()).hexdigest()[:16]
    return spec


def _tidied(engine: Engine, name: str) -> ContainerInfo | None:
    """The gate's container, after removing what a replacement that was cut short has left."""
    kept = None
    for container in engine.containers.list({ROLE: "gate", GATE_LABEL: name}):
        if container.name == name:
            kept = container
        else:
            engine.containers.remove(container.id)
    if kept is None and engine.containers.get(name) is not None:
        raise UserError(
            "name-taken",
            f"a container named {name} exists that is not a gate of ours",
            hint=f"Rename or remove it: docker rename {name} ANOTHER-NAME",
            exit_status=Exit.CONFLICT,
        )
    return kept


def _replaced(
    engine: Engine, old: ContainerInfo | None, spec: ContainerSpec, reporter: Reporter, clock: Clock
) -> GateHandle:
    """Put a new gate in the place of `old`; where the new one does not come up, `old` is there again as before."""
    name = spec.name
    reporter(Step("gate", f"{'starting' if old is None else 'replacing'} {name}"))
    if engine.volumes.get(f"{name}-state") is None:
        engine.volumes.create(f"{name}-state", {k: v for k, v in spec.labels.items() if k != CONTENT})
    # Undone also on Ctrl-C: a host without a gate answers no names.
    with ExitStack() as undo:
        if old is not None:
            undo.callback(_restored, engine, old, name)
            engine.containers.rename(old.id, f"{name}-{secrets.token_hex(4)}")
        made = engine.containers.create(spec)
        undo.callback(engine.containers.remove, made)
        if old is not None:
            engine.containers.stop(old.id, STOP_SECONDS)
        engine.containers.start(made)
        hello = _greeted(engine, made, reporter, clock)
        undo.pop_all()
    if old is not None:
        engine.containers.remove(old.id)
    return GateHandle(engine, name, made, hello)


def _restored(engine: Engine, old: ContainerInfo, name: str) -> None:
    found = engine.containers.get(old.id)
    if found is not None and found.name != name:
        engine.containers.rename(old.id, name)
    if old.running:
        engine.containers.start(old.id)


def _greeted(engine: Engine, container: str, reporter: Reporter, clock: Clock) -> Hello:
    """Wait until the gate says hello."""
    watched: Watched | None = None
    # One that crashed once, long ago, and was started again by the engine is as good as any.
    crashes: int | None = None
    deadline = clock.monotonic() + HELLO_SECONDS
    while True:
        info = engine.containers.get(container)
        if info is not None and crashes is None:
            crashes = info.restarts
        if info is None or info.state in ("exited", "dead") or info.restarts > (crashes or 0):
            raise _failed(engine, container, info, "it ended")
        try:
            with relayed(engine, container, max(1.0, deadline - clock.monotonic())) as client:
                return client.handshake()
        except UserError as error:
            if error.code == "gate-version":
                raise
            if clock.monotonic() > deadline:
                reason = f"it did not answer within {HELLO_SECONDS:g} s: {error.message}"
                raise _failed(engine, container, info, reason) from error
        if watched is None:
            watched = Watched(reporter, Step("gate", "waiting for the gate to answer"), clock)
        watched.beat()
        time.sleep(0.05)


def _failed(engine: Engine, container: str, info: ContainerInfo | None, why: str) -> UserError:
    status = f" with status {info.exit_code}" if info is not None and info.exit_code else ""
    error = f" ({info.error})" if info is not None and info.error else ""
    lines = engine.containers.logs(container, 12).strip().splitlines() if info is not None else []
    tail = "".join(f"\n    {line}" for line in lines)
    return UserError(
        "gate-failed",
        f"the gate does not work: {why}{status}{error}{tail}",
        hint="Nothing is open because of this: interfaces stay locked. 'cspace doctor' says what the host lacks.",
        details={"lines": lines},
    )
