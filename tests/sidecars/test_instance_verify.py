"""What is probed, and what is made of it, over an engine that only pretends to run programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from netpolicy.command import Completed
from netpolicy.compile import compile_policy
from netpolicy.errors import Exit, UserError
from netpolicy.flow import Flow
from netpolicy.policy import parse
from netpolicy.presets import names as preset_names
from netpolicy.probe import VerificationReport
from sidecars.engine import Engine
from sidecars.progress import Step, silent
from sidecars.verify import verify


class Execs:
    """Answers probes from a table: (container, target) to outcome and address."""

    def __init__(self, answers: dict[tuple[str, str], list[tuple[str, str | None]]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    def run(self, container: str, argv: Sequence[str], **options: Any) -> Completed:
        assert list(argv[:3]) == ["/usr/bin/python3", "-I", "-"]
        # What the project's own variables would load into the probe is left out.
        assert [options["env"][name] for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT")] == ["", "", ""]
        lines = []
        for target in argv[5:]:
            self.asked.append((container, target))
            known = self.answers.get((container, target), [("refused", None)])
            outcome, address = known.pop(0) if len(known) > 1 else known[0]
            lines.append(
                json.dumps(
                    {"target": target, "outcome": outcome, "milliseconds": 1.0, "address": address, "detail": "said so"}
                )
            )
        return Completed(tuple(argv), 0, "\n".join(lines).encode(), b"")


def run(execs: Execs, policy: dict[str, Any] | None = None, **options: Any) -> VerificationReport:
    document = {"presets": dict.fromkeys(preset_names(), False), "domains": ["good.example"], **(policy or {})}
    verify_settings = {"blocked": ["bad.example"], "allowed": ["https://good.example/"]}
    parsed = parse({"verify": verify_settings, **document}, source="test")
    engine = cast(Engine, SimpleNamespace(containers=SimpleNamespace(execs=execs)))
    return verify(
        engine,
        inside="dev",
        control="gate",
        ruleset=compile_policy(parsed),
        settings=parsed.verify,
        **{"permits": lambda _flow: False, "reporter": silent, **options},
    )


def answers() -> dict[tuple[str, str], list[tuple[str, str | None]]]:
    return {
        ("gate", "bad.example"): [("reached", "192.0.2.1")],
        ("dev", "bad.example"): [("dns-denied", None)],
        ("gate", "https://good.example/"): [("reached", "192.0.2.2")],
        ("dev", "https://good.example/"): [("reached", "192.0.2.2")],
    }


@pytest.mark.requirement("F10")
def test_the_address_behind_a_blocked_name_is_tried_as_well() -> None:
    execs = Execs(answers())
    report = run(execs)
    assert report.state == "verified"
    assert ("dev", "192.0.2.1:443/tcp") in execs.asked
    assert [proof.target for proof in report.blocked] == ["bad.example", "192.0.2.1:443/tcp"]


@pytest.mark.requirement("F10")
def test_an_address_that_answers_is_a_breach_though_its_name_is_blocked() -> None:
    report = run(Execs({**answers(), ("dev", "192.0.2.1:443/tcp"): [("reached", "192.0.2.1")]}))
    assert report.state == "breached"


def test_an_address_that_serves_an_allowed_name_too_proves_nothing_and_is_left_out() -> None:
    seen: list[Flow] = []

    def permits(flow: Flow) -> bool:
        seen.append(flow)
        return True

    execs = Execs(answers())
    assert run(execs, permits=permits).state == "verified"
    assert [str(flow) for flow in seen] == ["192.0.2.1:443/tcp"]
    assert ("dev", "192.0.2.1:443/tcp") not in execs.asked


@pytest.mark.requirement("F10")
def test_an_offline_host_is_degraded_with_both_reasons() -> None:
    report = run(Execs({key: [("dns-failed", None)] for key in answers()}))
    assert report.state == "degraded"
    assert any("the host itself cannot reach bad.example" in reason for reason in report.reasons)
    assert any("the host itself cannot reach https://good.example/" in reason for reason in report.reasons)


def test_what_fails_once_is_tried_once_more() -> None:
    table = answers()
    table["dev", "https://good.example/"] = [("timeout", None), ("reached", "192.0.2.2")]
    assert run(Execs(table)).state == "verified"
    table["dev", "https://good.example/"] = [("timeout", None)]
    execs = Execs(table)
    assert run(execs).state == "degraded"
    assert execs.asked.count(("dev", "https://good.example/")) == 2


def test_a_target_that_the_policy_contradicts_is_left_out_and_named() -> None:
    report = run(Execs(answers()), {"domains": ["good.example", "bad.example"]})
    assert report.skipped == ("bad.example cannot prove a block: the policy allows it",)
    assert report.state == "degraded"


def test_a_target_that_cannot_be_read_is_bad_input() -> None:
    settings = SimpleNamespace(blocked=("a b",), allowed=())
    parsed = parse({}, source="test")
    with pytest.raises(UserError) as caught:
        verify(
            cast(Engine, None), inside="dev", control="gate", ruleset=compile_policy(parsed), settings=settings,
            permits=lambda _flow: False, reporter=silent,
        )  # fmt: skip
    assert (caught.value.code, caught.value.exit_status) == ("bad-verify", Exit.BAD_INPUT)


def test_the_reporter_can_cancel() -> None:
    class Cancelled(Exception):
        pass

    def cancel(_step: Step) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        run(Execs(answers()), reporter=cancel)
