"""The gate in the background: one, whoever starts it; out of a Ctrl-C's reach; taken up again where it left."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys

import pytest
from operatekit import Operator, reaches

from netpolicy.gate.client import GateClient
from netpolicy.lab import Lab
from netpolicy.lab.lab import Workload
from netpolicy.operate import gates, homes

pytestmark = pytest.mark.kernel

DEADLINE = 60


def test_two_at_once_start_one_gate(lab: Lab, operator: Operator) -> None:
    names = ("wire0", "wire1", "wire2")
    for name in names:
        lab.add_workload(name)
    policy = operator.policy()
    started = [operator.popen("attach", "--interface", name, policy, "--no-verify") for name in names]
    assert [process.wait(DEADLINE) for process in started] == [0, 0, 0]
    with operator.gate() as gate:
        assert {state.attachment.id for state in gate.status().attachments} == set(names)
    assert (operator.state / "gate.log").read_text().count("ready: ") == 1


def test_an_interrupt_of_the_caller_leaves_the_gate_and_the_lock(lab: Lab, operator: Operator, box: Workload) -> None:
    slow, closed = lab.site("slow.example"), lab.site("closed.example")
    # Nobody answers there, so that applying waits for the name.
    policy = operator.policy("slow.example", dns={"upstream": ["192.0.2.253"]})
    lab.inet.run(["nft", "insert", "rule", "inet", "lab", "arrive", "ip", "daddr", "192.0.2.253", "drop"])
    process = operator.popen("attach", "--bridge", "br-work", policy, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    while b"applying" not in process.stderr.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    said = process.stderr.read().decode()
    assert process.wait(DEADLINE) == 130
    assert "br-work is locked: nothing passes there. Attach it again, or detach it." in said
    with operator.gate() as gate:
        assert [state.attachment.id for state in gate.status().attachments] == ["brwork"]
    assert not reaches(lab, box, closed)
    assert not reaches(lab, box, slow.v4)
    assert operator.run("detach", "brwork", "--yes", "--json").json["stopped"] == [str(operator.socket)]


def test_a_gate_that_was_killed_is_missed_and_started_again(lab: Lab, operator: Operator, box: Workload) -> None:
    allowed, closed = lab.site("allowed.example"), lab.site("closed.example")
    policy = operator.policy("allowed.example")
    operator.run("attach", "--bridge", "br-work", policy, "--no-verify", "--backend", "ipset")
    with operator.gate() as gate:
        pid = gate.handshake().pid
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(descriptor)
    missed = operator.run("status", "--json", status=3).json["error"]
    assert missed["code"] == "gate-unreachable"
    assert "'netpolicy verify' starts it again" in missed["hint"]
    assert not reaches(lab, box, closed.v4), "the kernel's rules outlive it"
    assert operator.run("verify", "--json").json["verdict"] == "verified"
    assert reaches(lab, box, allowed)
    with operator.gate() as gate:
        assert gate.handshake().backend == "ipset", "as it was asked for"
    operator.run("detach", "brwork", "--yes")
    assert reaches(lab, box, closed)


def wait_for_end(descriptor: int) -> None:
    assert select.select([descriptor], [], [], DEADLINE)[0]
    os.close(descriptor)


def test_a_gate_that_cannot_start_says_why(operator: Operator, box: Workload) -> None:
    operator.state.mkdir()
    with (operator.state / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        error = operator.run("attach", "--bridge", "br-work", operator.policy(), "--json", status=5).json["error"]
    assert error["code"] == "gate-failed"
    assert f"another gate uses the state directory {operator.state}" in error["message"]
    assert error["hint"] == f"Its log is {operator.state}/gate.log."
    assert reaches(operator.lab, box, operator.lab.site("open.example")), "nothing was begun"


def test_a_gate_that_cannot_listen_says_why(operator: Operator, box: Workload) -> None:
    socket = "/proc/nowhere/gate.sock"
    words = ("attach", "--bridge", "br-work", operator.policy(), "--json", "--state", str(operator.state))
    done = operator.lab.host.run([sys.executable, "-m", "netpolicy", *words, "--socket", socket], ok=range(256))
    message = json.loads(done.text)["error"]["message"]
    assert message.startswith("the gate could not be started: it ended with status 2: ")
    assert socket in message


def test_a_gate_is_not_ended_under_somebody_who_uses_it(operator: Operator, box: Workload) -> None:
    operator.run("attach", "--bridge", "br-work", operator.policy(), "--no-verify")
    home = homes.home(operator.socket, operator.state)
    with gates.talk(home, start=True) as gate:
        assert operator.run("detach", "brwork", "--yes", "--json").json["stopped"] == []
        assert gate.status().attachments == ()
    assert operator.lab.host.call(gates.forget, home)
    assert not operator.socket.exists()


def test_a_gate_of_another_home_is_not_ours_to_end(lab: Lab, operator: Operator, box: Workload) -> None:
    operator.run("attach", "--bridge", "br-work", operator.policy(), "--no-verify")
    home = homes.home(operator.socket, operator.state)
    assert gates.remembers(home)
    assert not gates.forget(home), "something is attached"
    with GateClient.connect(operator.socket) as gate:
        gate.detach("brwork")
    home.background.write_text('{"pid": 1, "born": "0"}')
    assert not gates.forget(home), "it is not the one that we started"
    with operator.gate() as gate:
        assert gate.status().attachments == ()
