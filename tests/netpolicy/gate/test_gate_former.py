"""A state file of the gate's first version: what it held is in force again, word for word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatekit import RecordingEnforcer, attachment, compiled, rules

from netpolicy.gate.core import Gate
from netpolicy.ruleset import Ruleset

pytestmark = pytest.mark.anyio
Make = Callable[..., Gate]


def first_version(ruleset: Ruleset) -> dict[str, Any]:
    """As it was written then: without ends, denials and the switches."""
    new = ruleset.to_json()
    old = {key: new[key] for key in ("policy", "mode", "host", "warnings")}
    return {
        **old,
        "format": 1,
        "names": [rule[:3] for rule in new["names"]],
        "ranges": [rule[:3] for rule in new["ranges"]],
    }


def row(identifier: str, ruleset: dict[str, Any] | None, **more: object) -> dict[str, Any]:
    place = attachment(identifier, gateway=f"127.0.0.{identifier[1:]}").to_json()
    del place["hook"], place["published"]
    held = {"attachment": place, "ruleset": ruleset, "upstreams": None, "dns_port": None, "applied_at": 5.0}
    return {**held, **more}


@pytest.mark.requirement("F11")
async def test_what_the_first_version_remembered_is_in_force_again(
    gate: Make, enforcer: RecordingEnforcer, tmp_path: Path
) -> None:
    rich = compiled(
        domains=["a.example", "b.example:22"], allow=["192.0.2.0/24:443", "2001:db8::/32:80"], host_access=[80]
    )
    off = rules(enabled=False)
    damaged = first_version(rich)
    damaged["names"][0] = "nonsense"
    attachments = [
        row("a1", first_version(rich), upstreams=["192.0.2.53"], dns_port=40001),
        row("a2", first_version(off)),
        row("a3", None),
        row("a4", damaged),
        row("a5", {**first_version(rich), "format": 7}),
    ]
    path = tmp_path / "state" / "attachments.json"
    path.parent.mkdir(mode=0o700)
    path.write_text(json.dumps({"format": 1, "attachments": attachments}))
    async with gate() as one:
        assert enforcer.held == {"a1": rich, "a2": off, "a3": None, "a4": None, "a5": None}
        states = {state.attachment.id: state for state in (await one.status()).attachments}
        assert (states["a1"].phase, states["a1"].dns.port, states["a1"].applied_at) == ("enforced", 40001, 5.0)
        assert states["a1"].ruleset == rich.id
        problems = (await one.status()).problems
        assert [("a4" in problem, "a5" in problem) for problem in problems] == [(True, False), (False, True)]
        assert all("is locked until a policy is applied again" in problem for problem in problems)
        await one.apply("a3", rich)
    assert json.loads(path.read_text())["format"] == 2
    async with gate() as one:
        assert enforcer.held == {"a1": rich, "a2": off, "a3": rich, "a4": None, "a5": None}
