"""From rulesets and gate states to what people and agents read."""

from __future__ import annotations

from typing import Any

import pytest

from cspace_mcp import views
from cspace_mcp.cli.summary import firewall as in_words
from netpolicy.compile import compile_policy
from netpolicy.gate.protocol import Drift
from netpolicy.policy import parse
from netpolicy.presets import names as preset_names
from netpolicy.ruleset import Ruleset
from sidecars.instance import FirewallInfo


def ruleset(**policy: Any) -> Ruleset:
    return compile_policy(parse({"presets": dict.fromkeys(preset_names(), False), **policy}, source="test"), now=0.0)


def test_denials_come_first_and_ends_are_dates() -> None:
    found = views.rules(
        ruleset(
            allow=["*.web.example", {"host": "db.example:5432", "expires": "2027-01-31T12:00:00+01:00"}],
            deny=["ads.web.example", "192.0.2.0/24"],
        )
    )
    assert [(rule.target, rule.denies, rule.ends_at) for rule in found] == [
        ("ads.web.example", True, ""),
        ("192.0.2.0/24", True, ""),
        ("*.web.example", False, ""),
        ("db.example", False, "2027-01-31T11:00:00+00:00"),
    ]


@pytest.mark.requirement("F7")
@pytest.mark.parametrize(
    ("mode", "state", "words"),
    [("enforce", "enforced", "enforced"), ("observe", "observed", "OBSERVED ONLY"), ("off", "off", "OFF")],
)
def test_a_policy_that_lets_everything_out_is_said_before_anything_is_made(mode: str, state: str, words: str) -> None:
    planned = views.planned(ruleset(mode=mode, domains=["web.example"]))
    assert planned.state == state
    assert in_words(planned).startswith(words)


def test_what_other_programs_did_is_in_the_view() -> None:
    info = FirewallInfo(state="enforced", ends_at=1800000000.0, drift=Drift(2, "a rule was added", 1.0, "repaired"))
    view = views.firewall(info)
    assert view.drift == "2 times, the last time: a rule was added (repaired)"
    assert view.ends_at == "2027-01-15T08:00:00+00:00"
    assert "the next rule ends 2027-01-15 08:00 UTC" in in_words(view)
