"""attach, status, verify and detach on a bridge, with the verdict where packets arrive."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from pathlib import Path

import pytest
from operatekit import Operator, reaches
from support import people

from netpolicy.cli import main
from netpolicy.lab import Lab
from netpolicy.lab.lab import Workload

pytestmark = pytest.mark.kernel


@pytest.mark.requirement("F10")
@pytest.mark.requirement("F14")
@pytest.mark.parametrize("backend", ["nftables", "ipset"])
def test_a_bridge_is_attached_proven_and_detached(lab: Lab, operator: Operator, box: Workload, backend: str) -> None:
    closed, allowed = lab.site("closed.example"), lab.site("allowed.example")
    free = lab.add_workload()
    free.use_resolvers("198.51.100.53")
    assert reaches(lab, box, closed)
    assert reaches(lab, box, allowed)

    words = ("attach", "--bridge", "br-work", "--backend", backend)
    done = operator.run(*words, operator.policy("allowed.example"), "--json")
    (attached,) = done.json["attachments"]
    assert attached["id"] == "brwork"
    assert attached["phase"] == "enforced"
    assert attached["verdict"] == "verified"
    assert {proof["target"] for proof in attached["verification"]["blocked"]} >= {"example.com"}
    # A name that is blocked proves nothing of the packet filter, so an address of each family is tried as well.
    assert len(attached["verification"]["blocked"]) == 3
    assert "locked br-work" in done.errors

    assert not reaches(lab, box, closed)
    assert not reaches(lab, box, closed.v4)
    assert not reaches(lab, box, closed.v6)
    assert reaches(lab, box, allowed)
    assert reaches(lab, free, closed), "what is not attached is nobody's business"

    assert [gate["backend"] for gate in operator.run("status", "--json").json["gates"]] == [backend]
    listed = operator.run("status").text.splitlines()
    assert listed[0].split() == ["ID", "NAME", "INTERFACE", "FIREWALL", "REFUSED", "VERIFIED"]
    assert listed[1].startswith("brwork  br-work  br-work    enforced, 1 name (")
    assert listed[1].endswith("verified")
    shown = operator.run("status", "br-work", "--json").json
    assert {(row["address"], row["port"]) for row in shown["refusals"]} >= {(closed.v4, 443), (closed.v6, 443)}
    assert shown["denied"]["closed.example"] > 0

    gone = operator.run("detach", "br-work", "--yes").text.splitlines()
    assert gone[0].startswith("detached brwork: br-work is open again")
    assert gone[1] == f"the gate at {operator.socket} has ended: nothing is attached"
    assert reaches(lab, box, closed)
    assert operator.run("status").text == "nothing is attached"
    assert lab.host.run(["nft", "list", "tables"]).text.count("attach") == 0
    rules = lab.host.run(["iptables-save"]).text + lab.host.run(["ip6tables-save"]).text
    assert [line for line in rules.splitlines() if "np" in line] == []


def test_attaching_again_keeps_the_id_and_locks_nothing(lab: Lab, operator: Operator, box: Workload) -> None:
    first, second = lab.site("first.example"), lab.site("second.example")
    once = operator.run(
        "attach", "--bridge", "br-work", operator.policy("first.example"), "--name", "work", "--json"
    ).json
    again = operator.run("attach", "--bridge", "br-work", operator.policy("second.example"), "--name", "work", "--json")
    assert again.json["attachments"][0]["id"] == once["attachments"][0]["id"]
    assert again.json["attachments"][0]["attachment"]["name"] == "work"
    assert "locked" not in again.errors
    words = ("attach", "--bridge", "br-work", operator.policy("second.example"), "--no-verify")
    other = operator.run(*words, "--name", "other", "--backend", "ipset").errors
    assert "brwork keeps the name work; detach it first to give it another" in other
    assert "the gate that runs here filters with nftables; --backend is for one that is started" in other
    assert not reaches(lab, box, first)
    assert reaches(lab, box, second)
    assert operator.run("status", "work", "--json").json["state"]["ruleset"] == again.json["attachments"][0]["ruleset"]


def test_what_is_open_after_all_is_locked_again(lab: Lab, operator: Operator, box: Workload) -> None:
    allowed, elsewhere = lab.site("allowed.example"), lab.add_workload()
    elsewhere.use_resolvers("198.51.100.53")
    policy = operator.policy("allowed.example")
    # Inside is said to be where no firewall is: what a second way out would look like.
    done = operator.run("attach", "--bridge", "br-work", policy, "--from", elsewhere.name, "--json", status=5)
    assert done.json["error"]["code"] == "breached"
    assert "example.com must be blocked, but it answered inside" in done.json["error"]["message"]
    assert operator.run("status", "brwork", "--json").json["state"]["phase"] == "locked"
    assert not reaches(lab, box, allowed)

    operator.run("attach", "--bridge", "br-work", policy)
    assert reaches(lab, box, allowed)
    # Somebody who only asks changes nothing.
    assert operator.run("verify", "--from", elsewhere.name, "--json", status=5).json["error"]["code"] == "breached"
    assert reaches(lab, box, allowed)
    assert operator.run("status", "--json").json["attachments"][0]["verification"]["state"] == "breached"
    assert operator.run("verify", "--json").json["verdict"] == "verified"


def test_what_cannot_be_proven_is_said(lab: Lab, operator: Operator) -> None:
    wire = lab.add_workload("wire0")
    wire.use_resolvers("198.51.100.53")
    policy = operator.policy(verify={"blocked": ["example.com"], "allowed": []})
    text = operator.run("attach", "--interface", "wire0", policy).text
    assert "state     not verified: wire0 is no bridge" in text
    error = operator.run("verify", "wire0", "--json", status=3).json["error"]
    assert error["code"] == "cannot-verify"
    assert operator.run("attach", "--interface", "wire0", policy, "--strict", status=1)
    # Somebody who names a place behind it gets his proof: a namespace, or a process with resolvers of its own.
    resident = wire.popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    while not Path(f"/proc/{resident.pid}/cmdline").read_bytes().startswith(b"sleep"):
        assert resident.poll() is None
    error = operator.run("verify", "wire0", "--from", "nowhere", "--json", status=3).json["error"]
    assert error["message"] == "there is no network namespace 'nowhere'"
    for place in (wire.name, str(resident.pid)):
        assert operator.run("verify", "wire0", "--from", place, "--strict", "--json").json["verdict"] == "verified"


def test_another_firewall_that_drops_the_questions_is_found_out(lab: Lab, operator: Operator, box: Workload) -> None:
    lab.site("allowed.example")
    # As ufw does with what bridges send to the host.
    theirs = 'table inet theirs {\n chain input {\n type filter hook input priority 0\n iifname "br-work" drop\n }\n}\n'
    lab.host.run(["nft", "-f", "-"], stdin=theirs.encode())
    words = ("attach", "--bridge", "br-work", operator.policy("allowed.example"), "--seconds", "2", "--json")
    done = operator.run(*words).json["attachments"][0]
    assert done["verdict"] == "degraded"
    assert any(
        reason.startswith("no question for a name reached the gate from inside")
        and f"ufw allow in on br-work to any port {done['dns']['port']}" in reason
        for reason in done["verification"]["reasons"]
    )
    allow = f"iifname br-work meta l4proto {{ tcp, udp }} th dport {done['dns']['port']} accept"
    lab.host.run(["nft", "insert", "rule", "inet", "theirs", "input", *allow.split()])
    assert operator.run("verify", "--json").json["verdict"] == "verified"


def test_only_root_may(operator: Operator, box: Workload) -> None:
    policy = operator.policy()
    words = people.netpolicy("attach", "--bridge", "br-work", policy, "--json", "--socket", str(operator.socket))
    operator.lab.directory.chmod(0o755)
    done = operator.lab.host.run(words, user=people.NOBODY, ok=range(256))
    assert done.status == 3
    assert json.loads(done.text)["error"]["code"] == "not-permitted"


def test_a_policy_that_blocks_nothing_is_said_to(lab: Lab, operator: Operator, box: Workload) -> None:
    open_to_all = lab.site("open.example")
    text = operator.run("attach", "--bridge", "br-work", operator.policy(mode="observe")).text
    assert "firewall  observed only, nothing is refused: 0 names (" in text
    assert "state     not verified: the policy of br-work is only observed: it blocks nothing" in text
    assert reaches(lab, box, open_to_all)
    shown = operator.run("status", "brwork").text
    assert "would be refused" in shown
    assert "open.example (name)" in shown
    operator.run("apply", operator.policy(mode="off"), "--no-verify")
    assert operator.run("status").text.count("OFF: everything may leave") == 1
    assert operator.run("verify", "--json", status=3).json["error"]["code"] == "cannot-verify"


REFUSED = [
    (["--bridge", "nothing0"], 3, "link-missing"),
    (["--interface", "up0"], 2, "bad-interface"),
    (["--interface", "lo"], 2, "bad-interface"),
    (["--interface", "bare0"], 2, "bad-interface"),
    (["--bridge", "wire0"], 2, "not-a-bridge"),
    (["--output"], 2, "usage"),
    (["--output", "--netns", "nowhere"], 3, "no-namespace"),
    (["--output", "--netns", "/proc/self/ns/net"], 2, "bad-namespace"),
    (["--bridge", "wire0", "--netns", "x"], 2, "usage"),
    (["--interface", "wire0", "--from", "nowhere"], 3, "no-namespace"),
    (["--interface", "wire0", "--from", "/proc/self/ns/net"], 2, "bad-namespace"),
]


def test_what_cannot_be_attached_starts_nothing(lab: Lab, operator: Operator) -> None:
    lab.add_workload("wire0")
    lab.host.run(["ip", "link", "add", "bare0", "type", "bridge"])
    for words, status, code in REFUSED:
        # In this process, on the lab's host: nothing of it needs a program of its own.
        own = ("--socket", str(operator.socket), "--state", str(operator.state), "--json")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert lab.host.call(main, ["attach", *words, operator.policy(), *own]) == status, words
        assert (words, json.loads(printed.getvalue())["error"]["code"]) == (words, code)
    assert not operator.socket.exists()


def test_a_policy_that_is_wrong_starts_nothing(operator: Operator, box: Workload) -> None:
    path = operator.policy(domains=["*"])
    assert operator.run("attach", "--bridge", "br-work", path, "--json", status=2).json["error"]["code"] == "bad-policy"
    assert not operator.socket.exists()


def test_a_network_is_opened_only_by_somebody_who_says_so(lab: Lab, operator: Operator, box: Workload) -> None:
    closed = lab.site("closed.example")
    operator.run("attach", "--bridge", "br-work", operator.policy(), "--no-verify")
    assert "there is no terminal to ask at" in operator.run("detach", "br-work", status=2).errors
    assert operator.run("detach", status=2)
    assert "There are: brwork." in operator.run("detach", "br-other", "--yes", status=3).errors
    assert not reaches(lab, box, closed)
    done = operator.run("detach", "--all", "--yes", "--keep-gate", "--json").json
    assert done == {"detached": ["brwork"], "stopped": []}
    with operator.gate() as gate:
        assert gate.status().attachments == ()
    operator.run("attach", "--bridge", "br-work", operator.policy(), "--no-verify")
    assert operator.run("detach", "--all", "--yes", "--json").json["stopped"] == [str(operator.socket)]


def test_several_attachments_must_be_named(lab: Lab, operator: Operator, box: Workload) -> None:
    lab.add_workload("wire0")
    policy = operator.policy()
    for words in (["--bridge", "br-work"], ["--interface", "wire0"]):
        operator.run("attach", *words, policy, "--no-verify")
    done = operator.run("apply", policy, "--json", status=2).json["error"]
    assert done["code"] == "which-attachment"
    assert done["hint"] == "Name one of brwork, wire0."
    assert operator.run("apply", policy, "--to", "wire0", "--no-verify", "--json").json["id"] == "wire0"


def test_somebody_elses_gate_is_used_and_left_alone(lab: Lab, operator: Operator, box: Workload) -> None:
    words = ["gate", "serve", "--prefix", "br-", "--table", "theirs"]
    serving = operator.popen(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert serving.stderr is not None
        while b"ready" not in serving.stderr.readline():
            assert serving.poll() is None
        lab.add_workload("wire0")
        refused = operator.run("attach", "--interface", "wire0", operator.policy(), "--json", status=4).json["error"]
        assert refused["code"] == "gate-prefix"
        operator.run("attach", "--bridge", "br-work", operator.policy(), "--no-verify")
        gone = operator.run("detach", "brwork", "--yes").text
        assert gone == "detached brwork: br-work is locked again, by its name"
        assert serving.poll() is None
    finally:
        lab.host.stop(serving)


def test_the_socket_may_come_from_the_environment(lab: Lab, operator: Operator, box: Workload, tmp_path: Path) -> None:
    operator.run("attach", "--bridge", "br-work", operator.policy(), "--no-verify")
    words = operator.argv("status", "--json")[:-4]
    done = lab.host.run(words, env={"NETPOLICY_GATE": str(operator.socket)})
    assert [row["id"] for row in json.loads(done.text)["attachments"]] == ["brwork"]
