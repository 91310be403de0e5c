"""A change that nobody confirms is undone: when time has passed, whoever died meanwhile, and whatever was applied before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gatekit import FakeClock, RecordingEnforcer, attachment, rules

from netpolicy.errors import UserError
from netpolicy.gate.core import Gate
from netpolicy.gate.state import Unconfirmed

pytestmark = pytest.mark.anyio
Make = Callable[..., Gate]
OLD, NEW, NEWER = rules("old.example"), rules("new.example"), rules("newer.example")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize("key", ["by", "seconds"])
def test_a_deadline_that_never_comes_is_none(key: str) -> None:
    document = Unconfirmed(OLD, None, 1.0, 2.0, 3.0).to_json()
    assert Unconfirmed.from_json(document).by == 2.0
    for text in ("NaN", "Infinity"):
        with pytest.raises(ValueError, match="no time"):
            Unconfirmed.from_json({**document, key: json.loads(text)})


async def phase(gate: Gate) -> tuple[str, str | None]:
    [state] = (await gate.status()).attachments
    return state.phase, state.ruleset


async def test_unconfirmed_it_goes_back_and_says_so(gate: Make, enforcer: RecordingEnforcer, clock: FakeClock) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", OLD, upstreams=["192.0.2.53"], resolve_seconds=0)
        before = (await one.status()).attachments[0]
        clock.at += 100
        state = await one.apply("a1", NEW, upstreams=["192.0.2.54"], resolve_seconds=0, confirm_seconds=30)
        assert (state.ruleset, state.confirm_by) == (NEW.id, clock.now() + 30)
        clock.at += 29.9
        await one._rounds.once()
        assert await phase(one) == ("enforced", NEW.id)
        clock.at += 0.1
        await one._rounds.once()
        after = (await one.status()).attachments[0]
        assert (after.ruleset, after.confirm_by, after.applied_at) == (OLD.id, None, before.applied_at)
        assert after.warnings == ("test.json was not confirmed in time: project/a1 is back at test.json",)
        assert enforcer.held == {"a1": OLD}
        assert [str(server) for server in one._keep.held["a1"].service.upstreams.servers()] == ["192.0.2.53:53"]
        assert (await one.apply("a1", NEW, resolve_seconds=0)).warnings == ()


async def test_confirmed_it_stays(gate: Make, enforcer: RecordingEnforcer, clock: FakeClock) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", OLD)
        await one.apply("a1", NEW, confirm_seconds=30)
        assert (await one.confirm("a1")).confirm_by is None
        clock.at += 1000
        await one._rounds.once()
        assert enforcer.held == {"a1": NEW}
        with pytest.raises(UserError) as caught:
            await one.confirm("a1")
        assert (caught.value.code, caught.value.exit_status) == ("nothing-to-confirm", 4)
    clock.at += 1000
    async with gate(clock=clock) as one:
        assert await phase(one) == ("enforced", NEW.id)


async def test_what_was_locked_before_is_locked_again(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", NEW, confirm_seconds=30)
        clock.at += 30
        await one._rounds.once()
        assert await phase(one) == ("locked", None)
        assert enforcer.held == {"a1": None}
    async with gate(clock=clock) as one:
        assert await phase(one) == ("locked", None)


async def test_too_late_is_too_late_even_before_the_round(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", NEW, confirm_seconds=30)
        clock.at += 30
        with pytest.raises(UserError, match="no change of project/a1 waits"):
            await one.confirm("a1")


async def test_of_several_unconfirmed_changes_none_stays(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", OLD)
        await one.apply("a1", NEW, confirm_seconds=30)
        clock.at += 20
        await one.apply("a1", NEWER, confirm_seconds=30)
        clock.at += 20
        await one._rounds.once()
        assert enforcer.held == {"a1": NEWER}, "the later one has a time of its own"
        clock.at += 10
        await one._rounds.once()
        assert enforcer.held == {"a1": OLD}


async def test_a_change_without_the_question_needs_no_answer(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", NEW, confirm_seconds=30)
        assert (await one.apply("a1", NEWER)).confirm_by is None
        clock.at += 1000
        await one._rounds.once()
        assert enforcer.held == {"a1": NEWER}


@pytest.mark.requirement("F11")
async def test_a_deadline_that_passes_while_the_gate_is_down_is_kept(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock, tmp_path: Path
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", OLD)
        await one.apply("a1", NEW, confirm_seconds=30)
    clock.at += 31
    enforcer.calls.clear()
    async with gate(clock=clock) as one:
        assert enforcer.calls == ["install", "apply a1"]
        assert enforcer.held == {"a1": OLD}
        [state] = (await one.status()).attachments
        assert "was not confirmed in time" in state.warnings[0]
        [row] = json.loads((tmp_path / "state" / "attachments.json").read_text())["attachments"]
        assert row["unconfirmed"] is None


@pytest.mark.requirement("F11")
async def test_a_restart_before_the_deadline_keeps_the_question(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", OLD)
        await one.apply("a1", NEW, confirm_seconds=30)
    clock.at, clock.ahead = 5.0, clock.ahead + 1010  # the machine was started again, 15 seconds later
    async with gate(clock=clock) as one:
        assert await phase(one) == ("enforced", NEW.id)
        assert (await one.status()).attachments[0].confirm_by == clock.now() + 15
        clock.at += 15
        await one._rounds.once()
        assert enforcer.held == {"a1": OLD}


async def test_a_clock_that_is_set_back_gives_no_more_time(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", NEW, confirm_seconds=30)
        clock.ahead -= 86400
        clock.at += 30
        await one._rounds.once()
        assert enforcer.held == {"a1": None}
        await one.apply("a1", NEW, confirm_seconds=30)
    clock.ahead -= 86400
    async with gate(clock=clock) as one:
        clock.at += 30
        await one._rounds.once()
        assert enforcer.held == {"a1": None}


async def test_a_kernel_that_refuses_is_asked_again(gate: Make, enforcer: RecordingEnforcer, clock: FakeClock) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", OLD)
        await one.apply("a1", NEW, confirm_seconds=30)
        clock.at += 30
        enforcer.failing["apply"] = 1
        await one._rounds.once()
        [state] = (await one.status()).attachments
        assert state.ruleset == NEW.id
        assert state.warnings == ("project/a1 cannot go back to what was in force before: cannot apply",)
        await one._rounds.once()
        assert enforcer.held == {"a1": OLD}


async def test_it_is_remembered_before_the_kernel_is_changed(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock, tmp_path: Path
) -> None:
    """Killed at the very moment of the change, the next gate still knows what to go back to, and until when."""
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", OLD)
        seen: list[object] = []
        apply = enforcer.apply

        def look(*arguments: object) -> None:
            [row] = json.loads((tmp_path / "state" / "attachments.json").read_text())["attachments"]
            seen.append((row["ruleset"]["names"][0][0], row["unconfirmed"]["ruleset"]["names"][0][0]))
            apply(*arguments)  # type: ignore[arg-type]  # passed on as they are

        enforcer.apply = look  # type: ignore[assignment]  # to see what is on the disk
        await one.apply("a1", NEW, confirm_seconds=30)
        assert seen == [("new.example", "old.example")]


async def test_a_confirmation_that_cannot_be_saved_does_not_count(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", NEW, confirm_seconds=30)

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(UserError, match="No space left"):
                await one.confirm("a1")
            clock.at += 30
            await one._rounds.once()
            assert enforcer.held == {"a1": None}, "going back is not held up by a full disk"
    async with gate(clock=clock) as one:
        assert enforcer.held == {"a1": None}


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e9, float("nan"), float("inf")])
async def test_senseless_times_are_refused(gate: Make, enforcer: RecordingEnforcer, seconds: float) -> None:
    async with gate() as one:
        await one.attach(attachment())
        with pytest.raises(UserError) as caught:
            await one.apply("a1", NEW, confirm_seconds=seconds)
        assert caught.value.code == "bad-request"
        assert enforcer.held == {"a1": None}


async def test_attaching_or_detaching_ends_the_question(
    gate: Make, enforcer: RecordingEnforcer, clock: FakeClock
) -> None:
    async with gate(clock=clock) as one:
        await one.attach(attachment())
        await one.apply("a1", OLD)
        await one.apply("a1", NEW, confirm_seconds=30)
        await one.attach(attachment())
        clock.at += 30
        await one._rounds.once()
        assert enforcer.held == {"a1": None}
