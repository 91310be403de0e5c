"""What the gate looks after by itself: rules that end, and rules that another program has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from gatekit import FakeClock, RecordingEnforcer, attachment, rules, until

from netpolicy.flow import Flow
from netpolicy.gate.core import Gate
from netpolicy.resolve import Resolution, Resolved

pytestmark = pytest.mark.anyio
Make = Callable[..., Gate]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_at_its_end_a_rule_is_taken_away(gate: Make, enforcer: RecordingEnforcer, clock: FakeClock) -> None:
    both = rules("short.example", "long.example")
    whole = until(both, clock.now() + 60, "short.example")
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        state = await one.apply("a1", whole)
        await one.verified("a1", whole.id, {"state": "verified"})
        assert (state.ruleset, state.names, state.ends_at) == (whole.id, 2, clock.now() + 60)
        clock.at += 59
        await one._rounds.once()
        assert enforcer.held == {"a1": whole}
        clock.at += 1
        assert not (await one.check("a1", Flow(6, 443, name="short.example"))).allowed, "even before the round"
        await one._rounds.once()
        rest = whole.at(clock.now())
        assert enforcer.held == {"a1": rest}
        [state] = (await one.status()).attachments
        assert (state.ruleset, state.names, state.ends_at, state.verification) == (rest.id, 1, None, None)
        assert state.unresolved == ("long.example",)
        assert one._keep.held["a1"].record.ruleset == whole, "what was applied is remembered as a whole"
    enforcer.calls.clear()
    async with gate(clock=clock) as one:
        assert enforcer.held == {"a1": rest}
        assert (await one.status()).attachments[0].ruleset == rest.id
        assert enforcer.calls == ["install", "apply a1"]


@pytest.mark.requirement("F11")
async def test_a_rule_that_ends_while_the_gate_is_down_does_not_come_back(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    whole = until(rules("short.example"), clock.now() + 60)
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", whole)
    clock.at += 61
    async with gate(clock=clock) as one:
        assert enforcer.held == {"a1": whole.at(clock.now())}
        assert (await one.show("a1")).ruleset == whole.at(clock.now())


async def test_a_rule_that_has_ended_already_is_not_applied(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    whole = until(rules("short.example"), clock.now())
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        assert (await one.apply("a1", whole)).names == 0
        assert enforcer.held == {"a1": whole.at(clock.now())}


async def test_a_kernel_that_refuses_an_end_is_asked_again(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    whole = until(rules("short.example"), clock.now() + 60)
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", whole)
        clock.at += 60
        enforcer.failing["apply"] = 1
        await one._rounds.once()
        [state] = (await one.status()).attachments
        assert "rules of project/a1 have ended and cannot be taken away: cannot apply" in state.warnings
        await one._rounds.once()
        assert enforcer.held == {"a1": whole.at(clock.now())}
        assert (await one.status()).attachments[0].warnings == ()


async def learn(one: Gate) -> None:
    """As if the name had been asked for."""
    held = one._keep.held["a1"]
    found = Resolved("a.example", 1, (ip_address("192.0.2.1"),), (), 60, "192.0.2.53:53")
    async with held.service.hold():
        await one._keep._take_in(held, Resolution((found,), {}))


async def test_what_another_program_changed_is_put_right_with_what_was_learned(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
        await one.attach(attachment("b1", gateway="127.0.0.3"))
        await learn(one)
        await one.verified("a1", rules("a.example").id, {"state": "verified"})
        enforcer.calls.clear()
        enforcer.elements["a1"].clear()
        enforcer.drift = ["the table is gone"]
        clock.at += 10
        await one._rounds.once()
        assert enforcer.calls == ["install", "apply a1", "learn a1", "attach b1"]
        assert [(e.name, e.seconds) for e in enforcer.elements["a1"]] == [("a.example", 110.0)]
        states = {state.attachment.id: state for state in (await one.status()).attachments}
        assert {i: (s.phase, s.drift and s.drift.action) for i, s in states.items()} == {
            "a1": ("enforced", "repaired"),
            "b1": ("locked", "locked"),
        }
        drift = states["a1"].drift
        assert drift is not None
        assert (drift.times, drift.last, drift.at) == (1, "the table is gone", clock.now())
        assert states["a1"].verification is None, "it was verified before somebody meddled"
        enforcer.drift = ["a rule is gone", "a set is gone"]
        await one._rounds.once()
        drift = (await one.status("a1")).attachments[0].drift
        assert drift is not None
        assert (drift.times, drift.last) == (2, "a rule is gone; a set is gone")
        enforcer.calls.clear()
        await one._rounds.once()
        assert enforcer.calls == []


async def test_a_policy_may_ask_to_be_locked_instead(gate: Make, enforcer: RecordingEnforcer, clock: FakeClock) -> None:
    strict = replace(rules("a.example"), on_drift="lock")
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", strict)
        enforcer.drift = ["the table is gone"]
        await one._rounds.once()
        assert enforcer.held == {"a1": None}
        [state] = (await one.status()).attachments
        assert (state.phase, state.drift and state.drift.action) == ("locked", "locked")
        why = "locked, because another program changed the rules (the table is gone): apply a policy to go on"
        assert state.warnings == (why,)
    async with gate(clock=clock) as one:
        assert enforcer.held == {"a1": None}
        assert (await one.status()).attachments[0].warnings == (why,)
        assert (await one.apply("a1", strict)).warnings == ()
        assert enforcer.held == {"a1": strict}


@pytest.mark.parametrize("failing", ["install", "apply"])
async def test_what_cannot_be_put_right_is_tried_again(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock, failing: str
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
        enforcer.held.clear()
        enforcer.drift = ["the table is gone"]
        enforcer.failing = {failing: 1, "apply": 1}
        await one._rounds.once()
        [state] = (await one.status()).attachments
        assert state.drift is not None
        assert (state.drift.action, state.drift.times) == ("failed", 1)
        assert "the rules of project/a1 cannot be put right: cannot apply" in state.warnings
        await one._rounds.once()
        [state] = (await one.status()).attachments
        assert state.drift is not None
        assert (state.drift.action, state.drift.times, state.warnings) == ("repaired", 1, ())
        assert enforcer.held == {"a1": rules("a.example")}


async def test_a_change_under_way_is_not_disturbed_and_seen_to_later(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
        enforcer.calls.clear()
        enforcer.drift = ["the table is gone"]
        async with one._keep.turn("a1"):
            await one._rounds.once()
            assert enforcer.calls == ["install"]
        await one._rounds.once()
        assert enforcer.calls == ["install", "apply a1"]
