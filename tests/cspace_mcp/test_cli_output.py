"""What people see: progress, tables, the end of `up`, completion."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from support.claude.fake_service import FIREWALL, PROOF

from cspace_mcp.cli import PROGRAM, completion, progress, summary, table
from cspace_mcp.results import Firewall, Instance, Probe, Verification
from netpolicy import command
from sidecars.progress import Step


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> float:
        return self.time


INSTANCE = Instance(
    name="mars", project="shop", state="ready", branch="main", firewall=FIREWALL, verification=PROOF,
    subnets=["10.213.0.0/28", "fd5c:ace0::/64"], created="2026-01-02T03:04:05Z",
)  # fmt: skip


def test_plain_progress_is_a_line_a_phase_and_now_and_then_within_one() -> None:
    clock, out = Hand(), io.StringIO()
    report = progress.lines(out, clock)
    for time, step in [
        (0, Step("image", "building", 0.1)), (1, Step("image", "step 2", 0.2)), (4, Step("image", "step 3", 0.3)),
        (6, Step("image", "step 4", 0.4)), (7, Step("network", "reserving")), (8, Step("network", "reserving")),
    ]:  # fmt: skip
        clock.time = time
        report(step)
    assert out.getvalue() == " 10 % building\n 40 % step 4\nreserving\n"


def test_living_progress_is_one_line_that_stays_when_its_phase_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    clock, out = Hand(), io.StringIO()
    with progress.live(out, clock) as report:
        report(Step("image", "building"))
        clock.time = 0.01
        report(Step("image", "too soon to be drawn"))
        clock.time = 3.5
        report(Step("image", "building", seconds=3.4))
        report(Step("network", "reserving " + "x" * 100))
        clock.time = 4.0
    shown = out.getvalue().split("\r\x1b[K")
    assert shown[1:] == [
        "building",
        "building 3 s",
        "building   3.5 s\n",
        "reserving " + "x" * 48 + "…",
        "reserving " + "x" * 40 + "…   0.5 s\n",
    ]


def test_what_failed_stays_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress.live(out, Hand()) as report:
        report(Step("image", "building"))
        raise KeyboardInterrupt
    assert out.getvalue().endswith("\r\x1b[Kbuilding\n")


def test_a_table_is_aligned_and_harmless() -> None:
    assert table.columns(["name", "state"], [["a", "ready"], ["longer", "x\x1b[31m"]]) == (
        "NAME    STATE\na       ready\nlonger  x\N{REPLACEMENT CHARACTER}[31m"
    )


def test_the_end_of_up() -> None:
    assert (
        summary.told(INSTANCE)
        == """\
instance   mars of shop
branch     main
firewall   enforced, 2 names (.cspace.json)
blocked    example.com  dns-denied in 2 ms
reachable  https://api.github.com/zen  reached in 80 ms
network    10.213.0.0/28, fd5c:ace0::/64
state      ready

next
  cspace ssh mars             a shell in it
  cspace exec mars -- claude  Claude Code in it
  cspace exec mars -- CMD     one command
  cspace down mars            remove it"""
    )


@pytest.mark.requirement("F10")
def test_what_could_not_be_proven_is_said_with_its_reason() -> None:
    reason = "the host itself cannot reach it"
    proof = Verification(
        state="degraded",
        allowed=[Probe(target="https://api.github.com/zen", state="unproven", outcome="dns-failed", control="dns-failed", reason=reason)],
        reasons=[f"https://api.github.com/zen: {reason}"],
    )  # fmt: skip
    text = summary.told(
        INSTANCE.model_copy(update={"state": "degraded", "verification": proof, "reasons": proof.reasons})
    )
    assert f"reachable  https://api.github.com/zen  dns-failed (not proven): {reason}" in text
    assert f"state      degraded\n           https://api.github.com/zen: {reason}" in text


@pytest.mark.requirement("F7")
def test_a_firewall_that_is_off_stands_out() -> None:
    off = INSTANCE.model_copy(update={"firewall": Firewall(state="off")})
    assert "OFF: everything may leave" in summary.told(off)
    assert "OFF: everything may leave" in summary.listed([off], all_projects=False)


def test_the_list() -> None:
    assert summary.listed([], all_projects=False) == "no instances; 'cspace up' makes one"
    assert summary.listed([INSTANCE], all_projects=True).splitlines() == [
        "PROJECT  NAME  STATE  BRANCH  FIREWALL                          VERIFIED  MADE",
        "shop     mars  ready  main    enforced, 2 names (.cspace.json)  verified  2026-01-02 03:04",
    ]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("cspace im", "image"),
        ("cspace up --n", "--no-claude"),
        ("cspace up ", "--help --no-claude --strict --policy --json --quiet mars venus"),
        ("cspace image ", "build --help"),
        ("cspace image build --no", "--no-cache"),
        ("cspace exec mars -- --", ""),
        ("/some/where/cspace down v", "venus"),
        ("netpolicy ch", "check"),
        ("netpolicy check --po", "--policy"),
    ],
)
def test_completion_in_bash(tmp_path: Path, typed: str, offered: str) -> None:
    script = tmp_path / "completion"
    script.write_text(completion.bash(list(completion.vocabulary())))
    test = (
        'source "$0"; cspace() { [ "$*" = "list --names" ] && printf "mars\\nvenus\\n"; }\n'
        'IFS=" " read -ra COMP_WORDS <<< "$1"; [[ "$1" == *" " ]] && COMP_WORDS+=("")\n'
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _cspace; echo "${COMPREPLY[*]}"'
    )
    assert command.run(["bash", "-c", test, str(script), typed]).text == offered


def test_completion_knows_every_verb_and_every_option() -> None:
    words = list(completion.vocabulary())
    known = {" ".join(entry.path): entry for entry in words}
    for verb in PROGRAM.verbs:
        options = re.findall(r"--[a-z][a-z-]*", PROGRAM.parser(verb).format_usage())
        assert {word for word, _ in known[f"cspace {verb.name}"].options} >= set(options)
    for shell in (completion.bash(words), completion.bash(words, zsh=True), completion.fish(words)):
        assert "no-cache" in shell
