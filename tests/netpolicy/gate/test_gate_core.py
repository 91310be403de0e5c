"""The gate against an enforcer that writes down: what is in force, what is remembered, and that no failure opens anything."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from gatekit import RecordingEnforcer, attachment, rules

from netpolicy.attachment import Attachment
from netpolicy.errors import UserError
from netpolicy.flow import Flow, Layer
from netpolicy.gate.core import Gate
from netpolicy.gate.state import StateStore
from netpolicy.ruleset import Ruleset

pytestmark = pytest.mark.anyio
Make = Callable[..., Gate]


async def refused(awaitable: object) -> UserError:
    with pytest.raises(UserError) as caught:
        await awaitable  # type: ignore[misc]  # an operation's coroutine
    return caught.value


async def test_attached_is_locked_until_a_ruleset_is_applied(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        state = await one.attach(attachment())
        assert (state.phase, state.ruleset, state.policy, state.applied_at) == ("locked", None, None, None)
        assert (await one.check("a1", Flow(6, 443, name="a.example"))).layer is Layer.LOCAL
        state = await one.apply("a1", rules("a.example"))
        assert (state.phase, state.ruleset, state.names) == ("enforced", rules("a.example").id, 1)
        assert state.refused == 7
        assert enforcer.held == {"a1": rules("a.example")}
        assert (await one.check("a1", Flow(6, 443, name="a.example"))).allowed
        assert not (await one.check("a1", Flow(6, 443, name="b.example"))).allowed
        shown = await one.show("a1")
        assert shown.ruleset == rules("a.example")
    assert enforcer.calls == ["install", "attach a1", "apply a1"]
    assert enforcer.held == {"a1": rules("a.example")}


@pytest.mark.requirement("F7")
async def test_a_policy_that_is_off_is_shown_as_off(gate: Make) -> None:
    async with gate() as one:
        await one.attach(attachment())
        state = await one.apply("a1", rules(enabled=False))
        assert state.phase == "off"
        assert (await one.status()).attachments[0].phase == "off"


@pytest.mark.requirement("F8")
async def test_a_name_that_does_not_resolve_is_listed_and_no_stop(gate: Make) -> None:
    async with gate() as one:
        await one.attach(attachment())
        state = await one.apply("a1", rules("b.example", "a.example"))
        assert (state.phase, state.unresolved) == ("enforced", ("a.example", "b.example"))


async def test_attaching_again_locks_again(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment())
        first = await one.apply("a1", rules("a.example"))
        again = await one.attach(attachment())
        assert again.phase == "locked"
        assert again.dns.port == first.dns.port
        assert again.dns.listening
        assert enforcer.held == {"a1": None}


async def test_detached_is_forgotten_and_twice_is_no_error(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
        await one.detach("a1")
        await one.detach("a1")
        assert (await one.status()).attachments == ()
        assert (await refused(one.status("a1"))).code == "not-attached"
        assert enforcer.held == {}
    async with gate() as one:
        assert (await one.status()).attachments == ()


@pytest.mark.parametrize("operation", ["apply", "show", "verified"])
async def test_what_is_not_attached_is_named(gate: Make, operation: str) -> None:
    async with gate() as one:
        arguments = {"apply": (rules(),), "show": (), "verified": ("x", {})}[operation]
        error = await refused(getattr(one, operation)("nix", *arguments))
        assert (error.code, error.exit_status) == ("not-attached", 4)
        assert "'nix'" in error.message


async def test_only_interfaces_with_the_locked_prefix_may_be_attached(gate: Make, enforcer: RecordingEnforcer) -> None:
    """Detaching falls back to the base lock; without it detaching would open."""
    async with gate(prefix="csp-") as one:
        assert (await refused(one.attach(attachment(interface="eth0")))).code == "bad-attachment"
        bare = Attachment("a1", "x", "csp-1", (), ())
        assert (await refused(one.attach(bare))).code == "bad-attachment"
    assert enforcer.calls == ["install"]


async def test_a_refused_lock_leaves_what_was_in_force(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        enforcer.failing["attach"] = 1
        assert (await refused(one.attach(attachment()))).code == "kernel-refused"
        assert (await one.status()).attachments == ()
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
        enforcer.failing["attach"] = 1
        await refused(one.attach(attachment(gateway="127.0.0.2")))
        assert (await one.status()).attachments[0].phase == "enforced"
        assert (await one.status()).attachments[0].attachment == attachment()
    async with gate() as one:
        assert (await one.status()).attachments[0].phase == "enforced"


async def test_a_refused_ruleset_leaves_the_former_one(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
        enforcer.failing["apply"] = 1
        assert (await refused(one.apply("a1", rules("b.example")))).code == "kernel-refused"
        [state] = (await one.status()).attachments
        assert state.ruleset == rules("a.example").id
        assert (await one.check("a1", Flow(6, 443, name="a.example"))).allowed
    async with gate() as one:
        assert (await one.status()).attachments[0].ruleset == rules("a.example").id


async def test_bad_upstreams_are_refused_before_anything_changes(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment())
        error = await refused(one.apply("a1", rules("a.example"), upstreams=["dns.example"]))
        assert error.code == "bad-upstream"
        assert enforcer.held == {"a1": None}


async def test_a_state_that_cannot_be_saved_changes_nothing(
    gate: Make, enforcer: RecordingEnforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gate() as one:
        await one.attach(attachment())

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            error = await refused(one.apply("a1", rules("a.example")))
            assert error.code == "state-not-saved"
            assert "No space left on device" in error.message
            assert (await refused(one.attach(attachment("b1", gateway="127.0.0.3")))).code == "state-not-saved"
        assert enforcer.held == {"a1": None}
        assert [state.phase for state in (await one.status()).attachments] == ["locked"]
        assert (await one.apply("a1", rules("a.example"))).phase == "enforced"


async def test_a_report_counts_only_for_the_ruleset_it_verified(gate: Make) -> None:
    report = {"state": "verified"}
    async with gate() as one:
        await one.attach(attachment())
        assert (await refused(one.verified("a1", rules("a.example").id, report))).code == "stale-verification"
        await one.apply("a1", rules("a.example"))
        assert (await one.verified("a1", rules("a.example").id, report)).verification == report
        assert (await refused(one.verified("a1", "000000000000", report))).code == "stale-verification"
        assert (await one.status()).attachments[0].verification == report
        assert (await one.apply("a1", rules("a.example"))).verification is None
        await one.verified("a1", rules("a.example").id, report)
        assert (await one.attach(attachment())).verification is None


@pytest.mark.requirement("F11")
async def test_a_new_gate_brings_back_what_was_in_force(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment("a1"))
        await one.attach(attachment("b1", gateway="127.0.0.3"))
        await one.apply("a1", rules("a.example"), upstreams=["192.0.2.53"], resolve_seconds=0)
        before = await one.verified("a1", rules("a.example").id, {"state": "verified"})
    enforcer.calls.clear()
    enforcer.held = {"a1": rules("a.example")}  # the kernel lived on, but somebody took b1 away
    async with gate() as one:
        assert enforcer.calls[:3] == ["install", "apply a1", "attach b1"]
        after = {state.attachment.id: state for state in (await one.status()).attachments}
        assert (after["a1"].phase, after["b1"].phase) == ("enforced", "locked")
        assert after["a1"].ruleset == before.ruleset
        assert after["a1"].dns.port == before.dns.port == enforcer.ports["a1"]
        assert after["a1"].dns.listening
        assert after["a1"].applied_at == before.applied_at
        assert after["a1"].verification is None, "a report from before the restart is stale"


async def test_after_a_reboot_the_lock_comes_before_the_rules(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
    enforcer.held.clear()
    enforcer.calls.clear()
    async with gate():
        assert enforcer.calls == ["install", "attach a1", "apply a1"]


async def test_what_cannot_be_restored_is_locked_and_said(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
    enforcer.failing["apply"] = 1
    async with gate() as one:
        status = await one.status()
        assert status.attachments[0].phase == "locked"
        assert enforcer.held == {"a1": None}
        assert status.problems == ("project/a1 could not be restored and is locked: cannot apply",)
    async with gate() as one:
        assert (await one.status()).attachments[0].phase == "enforced"


DAMAGE = {
    "empty": b"",
    "cut": b'{"format": 1, "attachments": [{"attachment"',
    "not JSON": b"\xff\xfe\0",
    "a list": b"[]",
    "of the future": b'{"format": 3, "attachments": []}',
    "no rows": b'{"format": 1, "attachments": 7}',
}


@pytest.mark.requirement("F11")
@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE.keys())
async def test_a_damaged_state_file_opens_nothing_and_is_said(
    gate: Make, enforcer: RecordingEnforcer, tmp_path: Path, text: bytes
) -> None:
    async with gate() as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
    path = tmp_path / "state" / "attachments.json"
    path.write_bytes(text)
    for _ in range(2):
        enforcer.held = {"a1": rules("a.example")}
        async with gate() as one:
            status = await one.status()
            assert status.attachments == ()
            assert "is damaged" in status.problems[0]
            assert "unknown attachment a1; its interface is locked now" in status.problems[1]
            assert enforcer.held == {}, "the base lock of the prefix takes over"
    async with gate() as one:
        assert (await one.attach(attachment())).phase == "locked"
    assert path.with_suffix(".json.damaged").read_bytes() == text
    async with gate() as one:
        assert (await one.status()).problems == ()


async def test_one_damaged_attachment_does_not_take_the_others_along(
    gate: Make, enforcer: RecordingEnforcer, tmp_path: Path
) -> None:
    async with gate() as one:
        for number in (1, 2, 3):
            await one.attach(attachment(f"a{number}", gateway=f"127.0.0.{number}"))
            await one.apply(f"a{number}", rules("a.example"))
    path = tmp_path / "state" / "attachments.json"
    document = json.loads(path.read_text())
    document["attachments"][0]["ruleset"]["names"][0] = "nonsense"
    document["attachments"][1]["attachment"] = None
    path.write_text(json.dumps(document))
    async with gate() as one:
        status = await one.status()
        assert {s.attachment.id: s.phase for s in status.attachments} == {"a1": "locked", "a3": "enforced"}
        assert enforcer.held == {"a1": None, "a3": rules("a.example")}
        assert len(status.problems) == 3


async def test_what_is_sound_but_senseless_is_locked_and_said(
    gate: Make, enforcer: RecordingEnforcer, tmp_path: Path
) -> None:
    async with gate() as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
    path = tmp_path / "state" / "attachments.json"
    document = json.loads(path.read_text())
    document["attachments"][0]["upstreams"] = ["dns.example"]
    path.write_text(json.dumps(document))
    async with gate() as one:
        status = await one.status()
        assert [state.phase for state in status.attachments] == ["locked"]
        assert enforcer.held == {"a1": None}
        assert "'dns.example' is not the address of a resolver" in status.problems[0]


async def test_without_a_prefix_unknown_rules_are_left_alone(gate: Make, enforcer: RecordingEnforcer) -> None:
    enforcer.held = {"z9": rules("a.example")}
    async with gate(prefix=None) as one:
        assert enforcer.held == {"z9": rules("a.example")}
        assert "left as they are" in (await one.status()).problems[0]


async def test_no_base_lock_no_gate(gate: Make, enforcer: RecordingEnforcer) -> None:
    enforcer.failing["install"] = 1
    error = await refused(gate().__aenter__())
    assert error.code == "kernel-refused"
    assert enforcer.closed
    async with gate():
        pass


async def test_an_interface_that_is_not_there_yet_is_waited_for(gate: Make) -> None:
    async with gate(prefix="csp-") as one:
        await one.attach(attachment(interface="csp-nowhere"))
        state = await one.apply("a1", rules("a.example"))
        assert state.phase == "enforced"
        assert (state.dns.listening, state.warnings) == (False, ("the DNS gate waits for csp-nowhere",))
        assert state.dns.port is not None


async def test_a_port_that_was_taken_meanwhile_is_replaced(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment())
        before = await one.apply("a1", rules("a.example"))
    assert before.dns.port is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind(("127.0.0.1", before.dns.port))
        async with gate() as one:
            state = (await one.status()).attachments[0]
            assert state.dns.listening
            assert state.dns.port not in (None, before.dns.port)
            assert enforcer.ports["a1"] == state.dns.port, "the redirect leads to the new port"
            assert enforcer.held == {"a1": rules("a.example")}
    async with gate() as one:
        assert (await one.status()).attachments[0].dns.port == state.dns.port


async def test_a_redirect_that_the_kernel_refuses_is_tried_again(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment())
        port = (await one.apply("a1", rules("a.example"))).dns.port
    assert port is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind(("127.0.0.1", port))
        one = gate()
        apply = enforcer.apply

        def refuse_another_port(attachment: Attachment, ruleset: Ruleset, dns_port: int | None) -> None:
            if dns_port != port:
                enforcer.failing["apply"] = 1
            apply(attachment, ruleset, dns_port)

        enforcer.apply = refuse_another_port  # type: ignore[method-assign]  # a kernel that refuses the new redirect
        async with one:
            state = (await one.status()).attachments[0]
            assert state.phase == "enforced"
            assert "cannot apply" in state.warnings
            enforcer.apply = apply  # type: ignore[method-assign]  # and takes it later
            await one.apply("a1", rules("a.example"))
            state = (await one.status()).attachments[0]
            assert (state.warnings, enforcer.ports["a1"]) == ((), state.dns.port)


async def test_changes_of_one_attachment_wait_for_each_other(gate: Make, enforcer: RecordingEnforcer) -> None:
    async with gate() as one:
        await one.attach(attachment())
        rulesets = [rules(f"n{n}.example") for n in range(6)]
        states = await asyncio.gather(*(one.apply("a1", ruleset) for ruleset in rulesets))
        assert [state.ruleset for state in states] == [ruleset.id for ruleset in rulesets]
        assert enforcer.held == {"a1": rulesets[-1]}


async def test_two_gates_cannot_share_a_state_directory(gate: Make, tmp_path: Path) -> None:
    async with gate():
        with pytest.raises(UserError) as caught:
            StateStore(tmp_path / "state")
        assert (caught.value.code, caught.value.exit_status) == ("gate-running", 4)


async def test_a_gate_without_a_store_remembers_nothing(enforcer: RecordingEnforcer) -> None:
    async with Gate(enforcer, prefix="lo", upstreams=lambda: ()) as one:
        await one.attach(attachment())
        await one.apply("a1", rules("a.example"))
        assert str(ip_address("127.0.0.1")) in str(one._keep.held)
