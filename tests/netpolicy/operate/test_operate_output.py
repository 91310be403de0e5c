"""attach --output: the programs of a namespace, which a gate of its own confines."""

from __future__ import annotations

import secrets
import subprocess

import pytest
from operatekit import Operator, reaches

from netpolicy.kernel import netns
from netpolicy.lab import Lab
from netpolicy.lab.lab import Workload

pytestmark = pytest.mark.kernel


@pytest.fixture
def room(lab: Lab) -> Workload:
    """A namespace whose programs are confined; it asks resolvers that are none of ours."""
    made = lab.add_workload("wire0")
    made.use_resolvers("198.51.100.53")
    return made


@pytest.mark.parametrize("named", ["name", "process"])
def test_the_programs_of_a_namespace_are_confined(lab: Lab, operator: Operator, room: Workload, named: str) -> None:
    allowed, closed = lab.site("allowed.example"), lab.site("closed.example")
    assert reaches(lab, room, closed)
    resident = room.popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    text = room.name if named == "name" else str(resident.pid)
    if named == "process":
        # It has entered the namespace when it has become what it runs.
        while b"sleep" not in lab.host.run(["cat", f"/proc/{resident.pid}/cmdline"]).stdout[:6]:
            assert resident.poll() is None
    (done,) = operator.run("attach", "--output", "--netns", text, operator.policy("allowed.example"), "--json").json[
        "attachments"
    ]
    assert done["attachment"]["hook"] == "output"
    assert done["verdict"] == "verified"
    assert not reaches(lab, room, closed)
    assert not reaches(lab, room, closed.v4)
    assert not reaches(lab, room, closed.v6)
    assert reaches(lab, room, allowed)
    assert not operator.socket.exists(), "the gate of this machine's interfaces is another one"
    assert operator.run("verify", done["id"], "--json").json["verdict"] == "verified"

    if named == "process":
        return
    again = operator.run("attach", "--output", "--netns", text, operator.policy("closed.example"), "--json").json
    assert again["attachments"][0]["id"] == done["id"]
    assert reaches(lab, room, closed)
    assert not reaches(lab, room, allowed)
    gone = operator.run("detach", "--all", "--yes").text
    assert f"detached {done['id']}: the programs of netns {text} reach what the rest of the network lets them" in gone
    assert reaches(lab, room, allowed)
    assert room.run(["nft", "list", "tables"]).text == ""


def test_a_bridge_and_a_namespace_are_listed_together(
    lab: Lab, operator: Operator, room: Workload, box: Workload
) -> None:
    policy = operator.policy()
    operator.run("attach", "--bridge", "br-work", policy, "--no-verify")
    operator.run("attach", "--output", "--netns", room.name, "--name", "room", policy, "--no-verify")
    rows = operator.run("status", "--json").json
    assert [row["attachment"]["name"] for row in rows["attachments"]] == ["br-work", "room"]
    assert len({row["socket"] for row in rows["gates"]}) == 2
    assert operator.run("detach", "room", "--yes", "--json").json["stopped"] != []
    assert [row["id"] for row in operator.run("status", "--json").json["attachments"]] == ["brwork"]


def test_a_namespace_that_has_gone_leaves_a_gate_that_can_be_ended(operator: Operator) -> None:
    name = f"npt-{secrets.token_hex(4)}"
    netns.create(name)
    try:
        (done,) = operator.run("attach", "--output", "--netns", name, operator.policy(), "--no-verify", "--json").json[
            "attachments"
        ]
        # What stood behind --netns finds it as well, and who does not know it is told.
        assert operator.run("status", name, "--json").json["id"] == done["id"]
        assert operator.run("status", "x", status=3).errors.endswith(f"There are: {done['id']} (netns {name}).\n")
    finally:
        netns.delete(name)
    told = operator.run("status", "--json").json
    assert told["problems"] == [f"{done['id']}: its namespace has gone; 'netpolicy detach {done['id']}' ends its gate"]
    assert len(operator.run("detach", done["id"], "--yes", "--json").json["stopped"]) == 1
    assert operator.run("status").text == "nothing is attached"
    assert not list(operator.state.glob("ns-*"))
