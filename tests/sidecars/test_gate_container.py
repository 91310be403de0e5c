"""The gate in its container, on a Docker host inside a lab: what it is given, what it enforces, how it is replaced."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from instancing import Machine

from netpolicy.compile import compile_policy
from netpolicy.errors import UserError
from netpolicy.lab import Lab
from netpolicy.policy import parse
from netpolicy.ruleset import Ruleset
from sidecars import gate, networks
from sidecars.engine import PROJECT, ContainerSpec, Engine, labels
from sidecars.gate import Backend, GateHandle
from sidecars.images import BuildOptions
from sidecars.images.base import BASE

pytestmark = pytest.mark.docker

#: The image that was loaded, whatever happens to the sources while the tests run.
OPTIONS = BuildOptions(keep_stale=True)


@pytest.fixture
def engine(machine: Machine) -> Iterator[Engine]:
    """Without a gate, and without what the tests before have made."""
    if machine.engine.images.get(BASE) is None:
        machine.host.load(BASE)
    clear(machine.engine)
    yield machine.engine
    clear(machine.engine)


def clear(engine: Engine) -> None:
    for container in engine.containers.list({PROJECT: None}):
        engine.containers.remove(container.id)
    for network in engine.networks.list({PROJECT: "toy"}):
        engine.networks.remove(network.id)
    gate.remove(engine, state=True)


@pytest.fixture
def lab(machine: Machine) -> Lab:
    return machine.lab


def ensure(engine: Engine, **settings: object) -> GateHandle:
    return gate.ensure(engine, options=OPTIONS, **settings)  # type: ignore[arg-type]


def policy(*domains: str) -> Ruleset:
    return compile_policy(parse({"domains": list(domains), "presets": {}}, source="test"))


def workload(engine: Engine, name: str) -> networks.InstanceNetwork:
    """A container on an instance's network."""
    marks = labels("dev", project="toy", instance=name, version="0")
    network = networks.find(engine, "toy", name) or networks.reserve(engine, "toy", name, marks)
    engine.containers.create(
        ContainerSpec(name, BASE, marks, command=["sleep", "infinity"], network=network.name, init=True)
    )
    engine.containers.start(name)
    return network


def reach(engine: Engine, name: str, host: str, port: int = 443) -> str:
    """Connect from inside: ``reached``, ``timeout`` or how it failed."""
    script = f"exec 3<>/dev/tcp/{host}/{port}"
    done = engine.containers.execs.run(name, ["timeout", "5", "bash", "-c", script], ok=None, seconds=20)
    if done.status == 0:
        return "reached"
    return "timeout" if done.status == 124 else done.stderr.decode().strip().splitlines()[0]


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.05)


def test_it_has_net_admin_and_nothing_else(engine: Engine) -> None:
    handle = ensure(engine)
    assert handle.hello.prefix == "csp-"
    script = (
        "grep -E '^(CapPrm|CapBnd|NoNewPrivs)' /proc/1/status | tr -s '\\t' ' '; touch /x 2>/dev/null || echo read-only; "
        "touch /var/lib/netpolicy/probe && rm /var/lib/netpolicy/probe && echo state; ls /sys/class/net | grep -c docker0"
    )
    said = engine.containers.execs.run(handle.container, ["sh", "-c", script]).text.splitlines()
    assert said == ["CapPrm: 0000000000001000", "CapBnd: 0000000000001000", "NoNewPrivs: 1", "read-only", "state", "1"]
    info = gate.find(engine)
    assert info is not None
    assert not [m for m in info.mounts if "docker.sock" in m.source]
    assert [(m.target, m.source) for m in info.mounts] == [("/var/lib/netpolicy", "cspace-gate-state")]
    assert "WARNING" not in handle.logs()


def test_ensuring_twice_changes_nothing(engine: Engine) -> None:
    first = ensure(engine)
    assert ensure(engine).container == first.container
    engine.containers.stop(first.container, 5)
    assert ensure(engine).container == first.container


@pytest.mark.requirement("F1")
@pytest.mark.requirement("F9")
@pytest.mark.parametrize("backend", ["nftables", "ipset"])
def test_a_container_is_closed_until_a_policy_opens_what_it_names(lab: Lab, engine: Engine, backend: Backend) -> None:
    allowed, denied = lab.site(), lab.site()
    handle = ensure(engine, backend=backend)
    assert handle.hello.backend == backend
    network = workload(engine, "one")
    attachment = network.attachment("toy", "one")
    lab.receiver.forget()
    # Nothing is attached yet: the bridge's name alone locks it.
    assert "refused" in reach(engine, "one", allowed.v4)
    with handle.client() as client:
        client.attach(attachment)
        assert "refused" in reach(engine, "one", allowed.v4)
        assert not lab.receiver.arrived(allowed.v4)
        client.apply(attachment.id, policy(allowed.name))
    assert reach(engine, "one", allowed.name) == "reached"
    assert lab.receiver.arrived(allowed.v4) or lab.receiver.arrived(allowed.v6)
    began = time.monotonic()
    assert "refused" in reach(engine, "one", denied.v4)
    assert time.monotonic() - began < 2
    assert reach(engine, "one", denied.name) != "reached"
    assert not lab.receiver.arrived(denied.v4)
    assert not lab.receiver.arrived(denied.v6)
    # What a gate leaves in force would be in the way of the next one with another backend.
    gate.remove(engine, state=True)
    lab.host.run([sys.executable, "-m", "netpolicy", "gate", "uninstall", "--backend", backend, "--yes"])


@pytest.mark.requirement("F11")
def test_a_killed_gate_stays_closed_and_comes_back_with_its_policies(lab: Lab, engine: Engine) -> None:
    allowed, denied = lab.site("killed-allowed.example"), lab.site("killed-denied.example")
    handle = ensure(engine)
    attachment = workload(engine, "two").attachment("toy", "two")
    with handle.client() as client:
        client.attach(attachment)
        client.apply(attachment.id, policy(allowed.name))
    assert reach(engine, "two", allowed.name) == "reached"
    before = gate.find(engine)
    assert before is not None
    # The process, not the container: the engine starts it again, as after any crash.
    engine.containers.execs.run(before.id, ["sh", "-c", f"kill -9 {handle.hello.pid}"], ok=None)
    assert "refused" in reach(engine, "two", denied.v4)
    assert not lab.receiver.arrived(denied.v4)
    until(lambda: (found := gate.find(engine)) is not None and found.running and found.pid != before.pid, "no restart")
    again = ensure(engine)
    with again.client() as client:
        states = {s.attachment.id: s.phase for s in client.status().attachments}
    assert states[attachment.id] == "enforced"
    assert reach(engine, "two", allowed.name) == "reached"
    assert "refused" in reach(engine, "two", denied.v4)
    assert not lab.receiver.arrived(denied.v4)


def test_other_settings_replace_it_and_its_state_stays(lab: Lab, engine: Engine) -> None:
    allowed, denied = lab.site("replaced-allowed.example"), lab.site("replaced-denied.example")
    first = ensure(engine)
    attachment = workload(engine, "three").attachment("toy", "three")
    with first.client() as client:
        client.attach(attachment)
        client.apply(attachment.id, policy(allowed.name))
    second = ensure(engine, upstreams=["198.51.100.53"])
    assert second.container != first.container
    assert second.hello.upstreams == ("198.51.100.53:53",)
    assert engine.containers.get(first.container) is None
    with second.client() as client:
        assert [s.attachment.id for s in client.status().attachments if s.phase == "enforced"] == [attachment.id]
    assert reach(engine, "three", allowed.name) == "reached"
    assert "refused" in reach(engine, "three", denied.v4)


def test_a_gate_that_does_not_start_shows_its_words_and_the_old_one_is_back(engine: Engine) -> None:
    first = ensure(engine)
    with pytest.raises(UserError, match="not-an-address") as caught:
        ensure(engine, upstreams=["not-an-address"])
    assert caught.value.code == "gate-failed"
    assert [c.name for c in engine.containers.list({gate.GATE_LABEL: None})] == ["cspace-gate"]
    again = ensure(engine)
    assert again.container == first.container


def test_what_a_replacement_cut_short_has_left_is_removed(engine: Engine) -> None:
    first = ensure(engine)
    engine.containers.rename(first.container, "cspace-gate-0badcafe")
    second = ensure(engine)
    assert second.container != first.container
    assert [c.name for c in engine.containers.list({gate.GATE_LABEL: None})] == ["cspace-gate"]


def test_a_container_of_somebody_else_is_not_touched(engine: Engine) -> None:
    engine.containers.create(ContainerSpec("cspace-gate", BASE, {PROJECT: "other"}, command=["true"], network="none"))
    with pytest.raises(UserError) as caught:
        ensure(engine)
    assert caught.value.code == "name-taken"
    assert "docker rename" in str(caught.value.hint)
    assert gate.find(engine) is None
    found = engine.containers.get("cspace-gate")
    assert found is not None
    assert found.labels == {PROJECT: "other"}


def test_a_removed_gate_leaves_everything_closed(lab: Lab, engine: Engine) -> None:
    site = lab.site("removed.example")
    ensure(engine)
    workload(engine, "four")
    assert gate.remove(engine)
    assert not gate.remove(engine)
    assert "refused" in reach(engine, "four", site.v4)
    assert not lab.receiver.arrived(site.v4)
    with pytest.raises(UserError) as caught, GateHandle(engine, "cspace-gate", "cspace-gate", None).client():  # type: ignore[arg-type]
        pass
    assert caught.value.code == "container-missing"


def test_a_host_firewall_that_drops_bridges_is_mended_by_the_documented_rule(lab: Lab, engine: Engine) -> None:
    """As ufw does it: INPUT drops what nothing accepts. docs/images.md names the one rule."""
    site = lab.site("behind-ufw.example")
    handle = ensure(engine)
    network = workload(engine, "five")
    attachment = network.attachment("toy", "five")
    with handle.client() as client:
        client.attach(attachment)
        client.apply(attachment.id, policy(site.name))
    assert reach(engine, "five", site.name) == "reached"
    established = ["-A", "INPUT", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"]
    tools = ("iptables", "ip6tables")
    try:
        for tool in tools:
            lab.host.run([tool, "-w", *established])
            lab.host.run([tool, "-w", "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"])
            lab.host.run([tool, "-w", "-P", "INPUT", "DROP"])
        assert reach(engine, "five", site.name) != "reached"
        for tool in tools:
            lab.host.run([tool, "-w", "-I", "INPUT", "-i", "csp-+", "-j", "ACCEPT"])
        assert reach(engine, "five", site.name) == "reached"
        # It opens nothing: the gate's own rules come first. A connection that arrives would be counted here.
        with lab.host.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
            listening.bind(("0.0.0.0", 2222))
            listening.listen()
            listening.settimeout(5)
            assert "refused" in reach(engine, "five", str(network.gateways[0]), 2222)
            with lab.host.socket(socket.AF_INET, socket.SOCK_STREAM) as control:
                control.settimeout(5)
                control.connect((str(network.gateways[0]), 2222))
                assert listening.accept()[0].getpeername() == control.getsockname()
    finally:
        for tool in tools:
            lab.host.run([tool, "-w", "-P", "INPUT", "ACCEPT"])
            lab.host.run([tool, "-w", "-F", "INPUT"])
