"""Changes that nobody confirms, and changes by other programs, on a real kernel. Verdicts are taken at the internet."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from gatekit import dig, rules
from gateworld import World

from netpolicy.lab import Lab

pytestmark = [pytest.mark.kernel]


@pytest.fixture
def open_world(lab: Lab) -> Iterator[World]:
    """Its table can be changed by anybody who is root."""
    made = World(lab, owned=False)
    yield made
    made.client.close()


def nft(world: World, *words: str) -> None:
    world.lab.host.run(["nft", *words])


_APPLY_AND_DIE = """
import json, os, signal, sys
from pathlib import Path
from netpolicy.gate.client import GateClient
from netpolicy.ruleset import Ruleset
client = GateClient.connect(Path(sys.argv[1]))
client.apply(sys.argv[2], Ruleset.from_json(json.load(sys.stdin)), confirm_seconds=float(sys.argv[3]), resolve_seconds=2)
os.kill(os.getpid(), signal.SIGKILL)
"""


def apply_and_die(world: World, name: str, seconds: float) -> None:
    import json

    words = [sys.executable, "-c", _APPLY_AND_DIE, str(world.daemon.socket), world.attachment.id, str(seconds)]
    done = subprocess.run(words, input=json.dumps(rules(name).to_json()).encode(), check=False, timeout=60)
    assert done.returncode == -9


def test_a_change_is_undone_although_whoever_made_it_is_dead(world: World) -> None:
    """Also its connections are: they were never allowed for good."""
    old, new = world.lab.site(), world.lab.site()
    world.apply(old)
    apply_and_die(world, new.name, 2.0)
    with world.box.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.settimeout(5)
        made.connect((new.v4, 443))
        assert not world.reaches(old.v4)
        assert world.state().confirm_by is not None
        state = world.until(lambda state: state.confirm_by is None)
        assert state.ruleset == rules(old.name).id
        assert not world.reaches(new.v4)
        assert dig(world.box, old.name, server=world.gateway(0)).answers == (old.v4,)
        assert world.reaches(old.v4)
        with pytest.raises(OSError):
            made.sendall(b"still here")
            assert not made.recv(4096)
            raise ConnectionResetError


@pytest.mark.requirement("F11")
@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
def test_the_question_outlives_the_gate(world: World, late: bool) -> None:
    """Killed right after the change. Down beyond the deadline, it starts with what was before; else it still waits."""
    old, new = world.lab.site(), world.lab.site()
    world.apply(old)
    state = world.apply(new, confirm_seconds=1.0 if late else 600.0)
    assert state.confirm_by is not None
    world.daemon.kill()
    assert world.reaches(new.v4)
    while late and time.time() <= state.confirm_by:
        assert not world.reaches(old.v4), "without the gate the kernel holds the change"
    world.restart()
    after = world.state()
    assert (after.ruleset, after.confirm_by) == (
        (rules(old.name).id, None) if late else (state.ruleset, state.confirm_by)
    )
    if not late:
        assert world.client.confirm(world.attachment.id).confirm_by is None
    assert dig(world.box, (old if late else new).name, server=world.gateway(0)).status == "NOERROR"
    assert world.reaches(old.v4) == late
    assert world.reaches(new.v4) != late


def test_a_table_that_somebody_removed_is_back_within_a_second(open_world: World) -> None:
    world = open_world
    good, bad = world.lab.site(), world.lab.site()
    world.apply(good)
    other = world.lab.add_workload(f"csp-{world.attachment.id[:4]}z")
    world.client.attach(other.attachment("locked"))
    with world.box.socket(socket.AF_INET, socket.SOCK_STREAM) as living:
        living.settimeout(5)
        living.connect((good.v4, 443))
        begin = time.monotonic()
        nft(world, "delete", "table", "inet", "netpolicy")
        state = world.until(lambda state: state.drift is not None and state.drift.action == "repaired")
        assert time.monotonic() - begin < 1.5, "a second, and what it takes to ask"
        assert state.drift is not None
        assert state.drift.times >= 1
        assert world.reaches(good.v4), "what was learned is open again"
        assert not world.reaches(bad.v4)
        assert dig(world.box, good.name, server=world.gateway(0)).answers == (good.v4,)
        assert dig(world.box, bad.name, server=world.gateway(0)).status == "NXDOMAIN"
        assert other.reach(f"{good.v4}:443").outcome != "reached", "locked stays locked"
        living.sendall(b"still here")
        assert living.recv(4096)
    locked = world.client.status("locked").attachments[0]
    assert (locked.phase, locked.drift and locked.drift.action) == ("locked", "locked")


def test_rules_of_the_other_backend_that_somebody_flushed_are_back(lab: Lab) -> None:
    world = World(lab, "--backend", "ipset")
    good, bad = lab.site(), lab.site()
    world.apply(good)
    lab.host.run(["iptables", "-F", "FORWARD"])
    begin = time.monotonic()
    world.until(lambda state: state.drift is not None and state.drift.action == "repaired")
    assert time.monotonic() - begin < 2.0
    assert world.reaches(good.v4)
    assert not world.reaches(bad.v4)
    world.client.close()


def test_a_rule_that_somebody_put_in_is_taken_out(open_world: World) -> None:
    world = open_world
    bad = world.lab.site()
    world.apply()
    nft(world, "insert", "rule", "inet", "netpolicy", f"out_{world.attachment.id}", "accept")
    world.until(lambda state: state.drift is not None and state.drift.action == "repaired")
    assert not world.reaches(bad.v4)


def test_a_policy_that_asks_for_it_is_locked_until_somebody_applies_again(open_world: World) -> None:
    world = open_world
    good = world.lab.site()
    strict = replace(rules(good.name), on_drift="lock")
    world.put(strict)
    assert world.reaches(good.v4)
    nft(world, "flush", "chain", "inet", "netpolicy", f"out_{world.attachment.id}")
    state = world.until(lambda state: state.phase == "locked")
    assert any("another program changed the rules" in warning for warning in state.warnings)
    assert not world.reaches(good.v4)
    world.daemon.kill()
    world.restart()
    assert world.state().phase == "locked"
    assert not world.reaches(good.v4)
    world.put(strict)
    assert world.reaches(good.v4)


def test_our_own_changes_are_no_drift(world: World) -> None:
    sites = [world.lab.site() for _ in range(3)]
    for site in sites:
        world.apply(site)
        assert dig(world.box, site.name, server=world.gateway(0)).answers == (site.v4,)
    seen = world.daemon.client()
    begin = time.monotonic()
    while time.monotonic() - begin < 1.2:
        assert seen.status().attachments[0].drift is None
    seen.close()
