"""Whatever is fed to the language is a policy or one error of a known kind, and neither takes long nor garbles a terminal."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from policy_strategies import ENDS, MOMENTS, ROLES, WILDCARDS, anything, broken, policies, port_words, targets

from netpolicy.compile import compile_policy, written
from netpolicy.errors import UserError
from netpolicy.policy import Policy, load, parse
from netpolicy.policy.parsing import KEYS
from netpolicy.ruleset import Ruleset

FILES = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def judged(read: Any) -> None:
    """What is read is a policy that can be printed, read again and compiled; otherwise it is refused in the one way."""
    try:
        policy: Policy = read()
    except UserError as error:
        assert error.code == "bad-policy"
        assert error.details["problems"]
        json.dumps(error.as_dict(), ensure_ascii=False, allow_nan=False).encode()
        text = error.as_text()
        text.encode()
        assert all(c.isprintable() for line in text.splitlines() for c in line)
        assert len(text) < 30_000
        return
    assert parse(json.loads(json.dumps(policy.to_json())), source="p") == policy
    ruleset = compile_policy(policy, role=ROLES[2], now=MOMENTS[3])
    assert ruleset.id == written(policy, role=ROLES[2], now=MOMENTS[3]).id
    assert Ruleset.from_json(json.loads(json.dumps(ruleset.to_json()))) == ruleset


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good policy with something wrong at one place, or at two."""
    document = copy.deepcopy(draw(policies()))
    for _ in range(draw(st.integers(1, 2))):
        inner: Any = document
        while isinstance(inner, dict | list) and inner:
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            if not isinstance(inner[key], dict | list) or not inner[key] or draw(st.booleans()):
                inner[key] = draw(anything | targets() | port_words() | st.sampled_from((*ENDS, *ROLES, *WILDCARDS)))
                break
            inner = inner[key]
    return document


@given(mutated() | broken | anything)
@example({"deny": ["*.*"], "allow": [{"host": "_\x1b[31m", "expires": "\x00", "roles": [{}]}]})
@example({"\x1b]0;x\x07": 1})
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_document(document: Any) -> None:
    judged(lambda: parse(document, source="p"))


_SCALARS = st.sampled_from(
    [
        "true",
        "false",
        "nan",
        "-inf",
        "0x1F",
        "1e3",
        "2027-01-31",
        "2027-01-31T10:00:00Z",
        "2027-01-31T10:00:00",
        "10:00:00",
        '"a.example"',
        "'*.com'",
        '"""\nx"""',
        "[",
        "]",
        "{",
        "}",
        '{host = "a.example", expires = 2027-01-31}',
        "443",
    ]
)
_TOML = st.lists(
    st.builds("{} = {}".format, st.sampled_from((*KEYS, "host", "a.b", '""', "'x y'")), _SCALARS)
    | st.builds("{} = [{}, {}]".format, st.sampled_from(KEYS), _SCALARS, _SCALARS)
    | st.builds("[{}]".format, st.sampled_from((*KEYS, "firewall", "presets.npm")))
    | st.builds("[[{}]]".format, st.sampled_from(("allow", "deny", "firewall", "domains")))
    | st.builds("{}".format, _SCALARS)
    | st.text(max_size=12),
    max_size=7,
).map("\n".join)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    return tmp_path


@given(_TOML | st.text(max_size=60))
@FILES
def test_any_toml(folder: Path, text: str) -> None:
    path = folder / "policy.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    judged(lambda: load(path))


@given(policies().map(json.dumps), st.data())
@FILES
def test_any_json(folder: Path, text: str, data: st.DataObject) -> None:
    """A good text with a piece cut out, doubled or replaced."""
    first, second = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    piece = data.draw(
        st.sampled_from(["", text[first:second] * 2, ",", "{", '"', "null", "\\ud800", "1e999"]) | st.text(max_size=5)
    )
    path = folder / "policy.json"
    path.write_bytes((text[:first] + piece + text[second:]).encode("utf-8", "surrogatepass"))
    judged(lambda: load(path))


LONG = 200_000


@pytest.mark.parametrize(
    "document",
    [
        {"domains": ["a" * LONG]},
        {"domains": ["a." * LONG]},
        {"domains": ["*." * LONG]},
        {"domains": ["ü" * LONG]},
        {"domains": ["1" * LONG]},
        {"domains": ["[" + ":" * LONG]},
        {"domains": [":" * LONG]},
        {"domains": ["a:" + "1" * LONG]},
        {"domains": ["a/" + "x" * LONG]},
        {"domains": ["https://" + "@" * LONG]},
        {"x" * LONG: 1},
        {"presets": {"x" * LONG: True}},
        {"mode": "x" * LONG},
        {"mode": [[]] * LONG},
        {"allow": [{"host": "a.example", "ports": ["1" * LONG, "-" * LONG]}]},
        {"allow": [{"host": "a.example", "expires": "2" * LONG}]},
        {"allow": [{"host": "a.example", "roles": ["dev"] * LONG}]},
        {"allow": [{"host": "a.example", "roles": ["x" * LONG]}]},
        {"allow": [{"x" * LONG: 1}]},
        {"deny": [{}] * 20_000},
        {"verify": {"blocked": ["x" * LONG, "http://" + "/" * LONG]}},
        {"dns": {"upstream": ["1" * LONG, "[" * LONG]}},
        {"policy_file": "x" * LONG},
        {"domains": [f"10.{i >> 8}.{i & 255}.0/24:443" for i in range(5000)]},
        {"domains": [f"n{i}.example" for i in range(5000)], "deny": [f"*.n{i}.example" for i in range(5000)]},
        {"allow": [{"host": "a.example", "ports": list(range(100, 3000, 2))}]},
    ],
    ids=lambda document: json.dumps(document)[:30],
)
def test_long_ones_are_judged_as_well(document: Any) -> None:
    """None of them is slow in a way that grows with its square: the test's own time limit would tell."""
    try:
        compile_policy(parse(document, source="p"))
    except UserError as error:
        assert error.code == "bad-policy"
        assert len(error.as_text()) < 30_000
