"""Crashes and restarts under a live instance that sends all the time: what is denied never arrives, and nothing is called ready."""

from __future__ import annotations

import json
import secrets
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from instancing import World, nonce

from netpolicy.lab import Site
from sidecars import gate, images
from sidecars.instance import InstanceInfo, Phase

pytestmark = pytest.mark.docker

#: What the container runs: datagrams to everybody, from its first moment on, whether they can be sent or not.
PROGRAM = """
import os, select, socket
while True:
    for row in os.environ["SEND"].split(","):
        address, mark = row.split("=")
        try:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.sendto(mark.encode(), (address, 5000))
        except OSError:
            pass
    select.select([], [], [], 0.01)
"""


@dataclass(frozen=True)
class Restless:
    """An instance whose container never stops sending."""

    world: World
    info: InstanceInfo
    denied: tuple[str, ...]
    """The marks of what must never arrive."""
    allowed: str

    def up(self) -> InstanceInfo:
        return self.world.up("mercury", image=self.info.image, environment=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        return {"SEND": str(self.info.notes[0])}

    @property
    def phase(self) -> Phase:
        return self.world.list()["mercury"].phase

    def still_arrives(self) -> None:
        """From now on what is allowed arrives again: the sender is alive, and the policy in force."""
        self.world.machine.lab.receiver.forget()
        until(lambda: bool(self.world.machine.lab.receiver.saw(self.allowed)), "nothing allowed arrives")

    def nothing_denied_has_arrived(self) -> None:
        assert not [mark for mark in self.denied if self.world.machine.lab.receiver.saw(mark)]


@pytest.fixture
def restless(world: World) -> Iterator[Restless]:
    docker, lab = world.machine.host.docker, world.machine.lab
    image = f"restless-{secrets.token_hex(4)}:latest"
    made = docker("create", images.INSTANCE.name)
    docker("commit", "--change", f"CMD {json.dumps(['/usr/bin/python3', '-I', '-c', PROGRAM])}", made, image)
    docker("rm", made)
    opened, closed = lab.site(), lab.site()
    marks = nonce(), nonce(), nonce()
    rows = zip((opened.v4, closed.v4, closed.v6), marks, strict=True)
    send = ",".join(f"{address}={mark}" for address, mark in rows)
    world.policy = {"domains": ["api.github.com"], "allow": [f"{opened.v4}:5000/udp"]}
    info = world.up("mercury", image=image, environment={"SEND": send})
    assert info.phase is Phase.READY
    found = Restless(world, info.__class__(**{**fields_of(info), "notes": (send,)}), marks[1:], marks[0])
    found.still_arrives()
    unfiltered(world, closed, marks)
    yield found
    world.clear()
    docker("image", "rm", image)


def fields_of(info: InstanceInfo) -> dict[str, object]:
    return {name: getattr(info, name) for name in info.__dataclass_fields__}


def unfiltered(world: World, closed: Site, marks: tuple[str, ...]) -> None:
    """The positive control: the same datagrams from the host itself arrive."""
    lab = world.machine.lab
    for address, mark in zip((closed.v4, closed.v6), marks[1:], strict=True):
        world.machine.unfiltered("udp", address, "5000", mark)
        assert lab.receiver.saw(mark)
    lab.receiver.forget()


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.05)


@pytest.mark.requirement("F11")
def test_a_restart_of_the_gate_under_a_live_instance(restless: Restless) -> None:
    engine = restless.world.engine
    found = gate.find(engine)
    assert found is not None
    restless.world.machine.host.docker("restart", "--time", "0", found.name)
    assert restless.phase is not Phase.READY
    restless.still_arrives()
    until(lambda: restless.world.list()["mercury"].firewall.state == "enforced", "the policy is not in force again")
    assert restless.phase is Phase.DEGRADED, "the proof was of the gate before"
    restless.nothing_denied_has_arrived()
    assert restless.up().phase is Phase.READY
    restless.nothing_denied_has_arrived()


@pytest.mark.requirement("F11")
def test_a_crash_of_the_docker_daemon_under_a_live_instance(restless: Restless) -> None:
    host, lab = restless.world.machine.host, restless.world.machine.lab
    host.kill_daemon()
    # Nobody minds the containers now, but they go on, and so do the kernel's rules.
    restless.still_arrives()
    restless.nothing_denied_has_arrived()
    host.boot()
    until(lambda: restless.phase is Phase.STOPPED, "its container is not started by anybody but us")
    lab.receiver.forget()
    # Behind our back, before anybody has proven anything.
    host.docker("start", str(restless.info.container))
    restless.still_arrives()
    restless.nothing_denied_has_arrived()
    assert restless.phase is Phase.DEGRADED
    assert restless.up().phase is Phase.READY
    restless.nothing_denied_has_arrived()


@pytest.mark.requirement("F11")
@pytest.mark.parametrize("gate_comes_back", [True, False])
def test_a_power_cut(restless: Restless, gate_comes_back: bool) -> None:
    """Processes, rules and interfaces are gone; what the engine starts by itself is the gate, and nothing else of ours."""
    world = restless.world
    host, lab = world.machine.host, world.machine.lab
    if not gate_comes_back:
        host.docker("update", "--restart", "no", gate.NAME)
    host.kill_everything()
    lab.host.run(["sh", "-c", f"nft flush ruleset; ip link delete {restless.info.interface}"])
    assert "csp-" not in lab.host.run(["nft", "list", "ruleset"]).text
    lab.receiver.forget()
    host.boot()
    if gate_comes_back:
        until(
            lambda: world.list()["mercury"].firewall.state == "enforced", "the gate does not come back with its policy"
        )
    else:
        assert world.list()["mercury"].firewall.state == "unknown"
    assert restless.phase is Phase.STOPPED
    assert not lab.receiver.saw(restless.allowed), "nobody has started it"
    restless.nothing_denied_has_arrived()
    assert restless.up().phase is Phase.READY
    restless.still_arrives()
    restless.nothing_denied_has_arrived()
