"""A failure or a kill after any step leaves the old rules or the new ones, and never open ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from knocking import Guarded, carries, learned, rules

from netpolicy.errors import UserError
from netpolicy.kernel import flows
from netpolicy.kernel.ipset import IpsetEnforcer
from netpolicy.kernel.ipset.messages import Sets
from netpolicy.kernel.ipset.programs import Programs
from netpolicy.kernel.netlink import Message
from netpolicy.ruleset import Ruleset

pytestmark = pytest.mark.kernel


class Killed(BaseException):
    """What a killed process does: nothing more."""


def dying(monkeypatch: pytest.MonkeyPatch, at: int, made: Callable[[], BaseException]) -> Callable[[], int]:
    """Let a step fail or die after the nth: each message to ipset, each table's part of a script. Returns what counts them."""
    send, restore = Sets.send, Programs.restore
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done > at:
            raise made()

    def sending(sets: Sets, messages: Sequence[Message], *, ignore: frozenset[int] = frozenset()) -> None:
        for message in messages:
            step()
            send(sets, [message], ignore=ignore)

    def restoring(programs: Programs, version: int, script: str) -> None:
        for part in script.split("COMMIT\n")[:-1]:
            step()
            restore(programs, version, f"{part}COMMIT\n")

    monkeypatch.setattr(Sets, "send", sending)
    monkeypatch.setattr(Programs, "restore", restoring)
    return lambda: done


def again(one: Guarded) -> None:
    """A new process takes over."""
    one.enforcer.close()
    one.enforcer = IpsetEnforcer("netpolicy", one.lab.host.name)
    one.enforcer.install("csp-")


@pytest.fixture
def change(walled: Guarded) -> tuple[Ruleset, Ruleset, str, str, str, str]:
    """Two rulesets that differ; addresses that only the old, only the new, both and none allow."""
    old_only, new_only, both, never = (walled.fresh(4) for _ in range(4))
    old = rules({old_only: "443/tcp", both: "443/tcp"}, {"a.example": "443/tcp"})
    new = rules({new_only: "443/tcp 1-9/udp", both: "443/tcp"}, {"b.example": "443/tcp 8000-8010/tcp"})
    return old, new, old_only, new_only, both, never


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("sort", ["nft"], indirect=True)
@pytest.mark.parametrize("stride", [1, 2], ids=["from-another-policy", "from-the-lock"])
def test_after_each_step_of_an_apply(
    walled: Guarded,
    change: tuple[Ruleset, Ruleset, str, str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    stride: int,
) -> None:
    old, new, old_only, new_only, both, never = change
    met = set()
    for at in range(0, 200, stride):
        walled.enforcer.attach(walled.attachment, None)
        if stride == 1:
            walled.apply(old)
        try:
            with monkeypatch.context() as patch:
                dying(patch, at, Killed)
                walled.apply(new)
        except Killed:
            again(walled)
        else:
            assert at > 8, "sets of both families, rules of both"
            break
        verdicts = tuple(walled.tcp(address, 443).passed for address in (old_only, new_only, both, never))
        was = stride == 1
        assert verdicts in ((was, False, was, False), (False, True, True, False)), at
        met.add(verdicts)
    else:
        pytest.fail("it never came to the end")
    assert len(met) == 2, "both the old and the new state were met"
    assert walled.tcp(new_only, 443).passed
    assert walled.tcp(old_only, 443).refused


@pytest.mark.parametrize("sort", ["legacy"], indirect=True)
def test_after_a_failure_the_same_process_goes_on(
    walled: Guarded, change: tuple[Ruleset, Ruleset, str, str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, old_only, new_only, both, never = change
    walled.apply(old)
    for at in range(0, 40, 2):
        with monkeypatch.context() as patch:
            dying(patch, at, lambda: UserError("kernel-refused", "spoiled"))
            try:
                walled.apply(new)
            except UserError as error:
                assert error.message == "spoiled"
            else:
                assert at > 8
                break
        assert walled.tcp(both, 443).passed
        assert walled.tcp(never, 443).refused
        assert walled.tcp(old_only, 443).passed is not walled.tcp(new_only, 443).passed
        walled.apply(old)
        assert walled.tcp(old_only, 443).passed
        assert walled.tcp(new_only, 443).refused
    assert walled.tcp(new_only, 443).passed
    assert walled.tcp(old_only, 443).refused


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("sort", ["nft"], indirect=True)
def test_after_each_step_of_a_lock(walling: Callable[..., Guarded], monkeypatch: pytest.MonkeyPatch) -> None:
    one = walling()
    address = one.fresh(4)
    one.enforcer.attach(one.attachment, None)
    one.apply(rules({address: "443/tcp"}))
    assert one.tcp(address, 443).passed, "control"
    states = set()
    for at in range(100):
        with monkeypatch.context() as patch:
            dying(patch, at, Killed)
            try:
                one.enforcer.attach(one.attachment, None)
            except Killed:
                states.add(one.tcp(address, 443).passed)
                assert not one.tcp(one.fresh(4), 443).arrived
            else:
                break
        again(one)
        one.apply(rules({address: "443/tcp"}))
    assert states == {True, False}, "before and after the lock"
    assert one.tcp(address, 443).refused


def test_what_a_kill_left_is_tidied_by_the_next_start(walled: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    walled.apply(rules({"192.0.2.0/24": "443/tcp"}, {"a.example": "443/tcp"}))
    named = walled.fresh(4)
    walled.learn(learned("a.example", named, "443/tcp"))

    def names() -> set[str]:
        return set(walled.lab.host.run(["ipset", "list", "-n"]).text.split())

    before = names()
    new = rules({"198.51.100.0/28": "80/tcp 1-9/udp"}, {"a.example": "443/tcp 1000-2000/tcp"})
    for at in range(3, 14):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            dying(patch, at, Killed)
            walled.apply(new)
        again(walled)
    assert names() != before
    walled.apply(rules({"192.0.2.0/24": "443/tcp"}, {"a.example": "443/tcp"}))
    assert {name.replace("-m", "-n") for name in names()} == {name.replace("-m", "-n") for name in before}
    assert walled.tcp(named, 443).passed, "what was learned lives on"


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("sort", ["nft"], indirect=True)
def test_killed_before_connections_are_cut(walled: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    address, kept = walled.fresh(4), walled.fresh(4)
    walled.apply(rules({address: "443/tcp", kept: "443/tcp"}))
    live = [walled.connection(address, 443), walled.connection(kept, 443)]
    new = rules({kept: "443/tcp"})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(flows, "cut_withdrawn", dies)
        walled.apply(new)
    assert all(carries(sock) for sock in live), "control: it was killed before"
    again(walled)
    walled.apply(new)
    assert [carries(sock) for sock in live] == [False, True]
    with monkeypatch.context() as patch:
        patch.setattr(flows, "cut_withdrawn", dies)
        walled.apply(new)  # the same again has nothing to cut


def dies(*_: object) -> int:
    raise Killed
