"""What a policy's author writes for people is shown to whoever reviews the policy: it must not act on the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from netpolicy.policy import load, parse

FORGED = "fine\x1b[2K\x1b[1A\nallowed  *\u202e"
SHOWN = "fine\\x1b[2K\\x1b[1A\\nallowed  *\\u202e"


def test_a_reason_is_one_line_without_control_characters() -> None:
    policy = parse(
        {"allow": [{"host": "a.example", "reason": FORGED}, {"host": "b.example", "reason": "für uns"}]}, source="x"
    )
    assert [(rule.reason, rule.origin.reason) for rule in policy.allow] == [(SHOWN, SHOWN), ("für uns", "für uns")]


def test_so_is_what_a_preset_says_of_itself(tmp_path: Path) -> None:
    presets = tmp_path / ".cspace" / "presets"
    presets.mkdir(parents=True)
    document = {"names": ["a.example"], "summary": FORGED, "source": FORGED, "date": FORGED, "default": True}
    (presets / "mine.json").write_text(json.dumps(document))
    (tmp_path / ".cspace.json").write_text("{}")
    (found,) = (preset for preset in load(tmp_path).active if preset.name == "mine")
    assert (found.summary, found.source, found.date) == (SHOWN, SHOWN, SHOWN)


def test_and_the_name_of_a_policy_file(tmp_path: Path) -> None:
    (tmp_path / FORGED).write_text("{}")
    (tmp_path / ".cspace.json").write_text(json.dumps({"firewall": {"policy_file": FORGED}}))
    assert load(tmp_path).source == SHOWN
