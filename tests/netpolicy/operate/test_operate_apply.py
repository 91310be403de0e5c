"""apply: another policy in one step, and back by itself unless somebody says that it is right."""

from __future__ import annotations

import os
import pty
import select
import time

import pytest
from operatekit import Operator, reaches

from netpolicy.cli.apply import duration
from netpolicy.errors import UserError
from netpolicy.lab import Lab
from netpolicy.lab.lab import Workload

pytestmark = pytest.mark.kernel

DEADLINE = 40


def ruleset_within(operator: Operator, wanted: str) -> None:
    """Wait until the gate says that this ruleset is in force."""
    deadline = time.monotonic() + DEADLINE
    with operator.gate() as gate:
        while gate.status("brwork").attachments[0].ruleset != wanted:
            assert time.monotonic() < deadline


@pytest.fixture
def before(operator: Operator, box: Workload) -> str:
    """The ruleset that ``br-work`` is attached with: only `before.example` is reached."""
    path = operator.policy("before.example", name="before.json")
    done = operator.run("attach", "--bridge", "br-work", path, "--no-verify", "--json")
    return str(done.json["attachments"][0]["ruleset"])


@pytest.mark.requirement("F14")
def test_what_nobody_confirms_is_taken_back(lab: Lab, operator: Operator, box: Workload, before: str) -> None:
    former, later = lab.site("before.example"), lab.site("after.example")
    done = operator.run("apply", operator.policy("after.example"), "--confirm", "2s", "--no-verify", "--json")
    assert done.json["confirm_by"] is not None
    assert "unless 'netpolicy confirm brwork' comes within 2 s, brwork goes back" in done.errors
    ruleset_within(operator, before)
    assert reaches(lab, box, former)
    assert not reaches(lab, box, later)
    late = operator.run("confirm", "brwork", "--json", status=4).json["error"]
    assert late["code"] == "nothing-to-confirm"


def test_what_is_confirmed_in_time_stays(lab: Lab, operator: Operator, box: Workload, before: str) -> None:
    former, later = lab.site("before.example"), lab.site("after.example")
    # Verified as well, within the time.
    done = operator.run("apply", operator.policy("after.example"), "--confirm", "10m", "--json").json
    assert done["verdict"] == "verified"
    assert "unconfirmed" in operator.run("status", "brwork").text
    assert operator.run("confirm", "--json").json["confirm_by"] is None
    assert "unconfirmed" not in operator.run("status", "brwork").text
    assert reaches(lab, box, later)
    assert not reaches(lab, box, former)


@pytest.mark.parametrize("answer", ["\n", ""], ids=["enter", "silence"])
def test_a_terminal_counts_down(operator: Operator, before: str, answer: str) -> None:
    mine, theirs = pty.openpty()
    seconds = "30s" if answer else "2s"
    process = operator.popen(
        "apply",
        operator.policy("after.example"),
        "--confirm",
        seconds,
        "--no-verify",
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        told = read_until(mine, "press Enter within")
        os.write(mine, answer.encode())
        told += read_until(
            mine, "netpolicy: confirmed" if answer else "not confirmed: back to what was in force before"
        )
        assert process.wait(DEADLINE) == (0 if answer else 1), told
    finally:
        os.close(mine)
    if answer:
        with operator.gate() as gate:
            state = gate.status("brwork").attachments[0]
        assert state.confirm_by is None
        assert state.ruleset != before
    else:
        ruleset_within(operator, before)


def read_until(descriptor: int, wanted: str) -> str:
    text = ""
    deadline = time.monotonic() + DEADLINE
    while wanted not in text:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, text
        text += os.read(descriptor, 4096).decode()
    return text


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("30s", 30), ("1.5s", 1.5), ("5m", 300), ("24h", 86400), (" 2m ", 120)]
)
def test_times_to_confirm(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["0", "0.5s", "soon", "2d", "-3", "25h", "", "1e3", "30 s", "nan"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="is no time between a second and a day") as raised:
        duration(text)
    assert raised.value.exit_status == 2
