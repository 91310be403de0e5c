"""A failure or a kill at any moment leaves the old state or the new one, and never an open one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

import pytest
from knocking import Guarded, learned, nft, rules

from netpolicy.errors import UserError
from netpolicy.kernel.netlink import Message, Netlink
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.ruleset import Ruleset

pytestmark = pytest.mark.kernel


class Killed(BaseException):
    """What a killed process does: nothing more."""


def state(one: Guarded, *, referenced: bool = False) -> str:
    """What the second reader sees, without handles and what time changes; on request without sets nothing looks into."""
    text = nft(one.lab.host.name, "-j", "list", "table", "inet", "netpolicy")
    rows = json.loads(text)["nftables"]
    if referenced:
        used = set(re.findall(r'"@(\w+)"', text))
        rows = [row for row in rows if not ("set" in row and row["set"]["name"] not in used)]
    lines = sorted(
        re.sub(r'"(handle|expires|packets|bytes)": \d+', "", json.dumps(row, sort_keys=True)) for row in rows
    )
    return "\n".join(lines)


def transactions(monkeypatch: pytest.MonkeyPatch) -> list[list[Message]]:
    """The batches that are sent from now on."""
    seen: list[list[Message]] = []
    send = Netlink.transaction

    def noted(link: Netlink, messages: Sequence[Message]) -> None:
        if messages:
            seen.append(list(messages))
        send(link, messages)

    monkeypatch.setattr(Netlink, "transaction", noted)
    return seen


@pytest.fixture
def change(guarded: Guarded) -> tuple[Ruleset, Ruleset, str, str, str]:
    """Two rulesets that differ in everything; an address that only the old, only the new, and none of them allows."""
    old_only, new_only, never = (guarded.fresh(4) for _ in range(3))
    old = rules({old_only: "443/tcp 80/tcp"}, {"a.example": "443/tcp 8000-8010/tcp"}, host="3000/tcp")
    new = rules({new_only: "443/tcp", "2001:db8:9::/64": "22/tcp"}, {"b.example": "443/tcp 1-9/udp"}, host="3001/tcp")
    return old, new, old_only, new_only, never


def test_each_message_of_an_apply_refused_by_the_kernel(
    guarded: Guarded, change: tuple[Ruleset, Ruleset, str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, old_only, new_only, never = change
    guarded.apply(old, 5300)
    guarded.learn(learned("a.example", "192.0.2.77", "443/tcp 8000-8010/tcp", 3600))
    before = state(guarded)
    with monkeypatch.context() as patch:
        sent = transactions(patch)
        guarded.apply(new, 5300)
    sizes = [len(batch) for batch in sent]
    guarded.apply(old, 5300)
    guarded.learn(learned("a.example", "192.0.2.77", "443/tcp 8000-8010/tcp", 3600))
    assert state(guarded) == before
    assert len(sizes) >= 3, "sets, rules, clean-up"
    assert sum(sizes) > 40
    send = Netlink.transaction
    for number, size in enumerate(sizes):
        for index in range(size):
            spoiled = _spoiling(send, number, index)
            with monkeypatch.context() as patch, pytest.raises(UserError) as refused:
                patch.setattr(Netlink, "transaction", spoiled)
                guarded.apply(new, 5300)
            assert refused.value.details["index"] == index, "the error names the message"
            if number <= 1:
                assert state(guarded, referenced=True) == before, (number, index)
            else:
                guarded.apply(old, 5300)
                guarded.learn(learned("a.example", "192.0.2.77", "443/tcp 8000-8010/tcp", 3600))
    guarded.apply(old, 5300)
    assert guarded.tcp(old_only, 443).passed
    assert guarded.tcp(new_only, 443).refused
    assert guarded.tcp(never, 443).refused


def _spoiling(
    send: Callable[[Netlink, Sequence[Message]], None], number: int, index: int
) -> Callable[[Netlink, Sequence[Message]], None]:
    """A transport that turns one message of the nth batch into one that no kernel takes."""
    seen = iter(range(1000))

    def transaction(link: Netlink, messages: Sequence[Message]) -> None:
        if messages and next(seen) == number:
            messages = list(messages)
            bad = messages[index]
            messages[index] = Message(bad.kind, b"", bad.what, bad.flags, bad.family)
        send(link, messages)

    return transaction


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("first_time", [True, False], ids=["from-the-lock", "from-another-policy"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_before_and_after_each_transaction(
    guarded: Guarded,
    change: tuple[Ruleset, Ruleset, str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    first_time: bool,
    when: str,
) -> None:
    old, new, old_only, new_only, never = change
    send = Netlink.transaction
    met = set()
    for kill_at in range(10):
        guarded.enforcer.close()
        guarded.enforcer = NftablesEnforcer("netpolicy", guarded.lab.host.name)
        guarded.enforcer.install("csp-")
        guarded.enforcer.attach(guarded.attachment, None)
        if not first_time:
            guarded.apply(old)
        done = iter(range(1000))

        def dying(link: Netlink, messages: Sequence[Message], kill_at: int = kill_at, done=done) -> None:
            dies = bool(messages) and next(done) == kill_at
            if dies and when == "before":
                raise Killed
            send(link, messages)
            if dies:
                raise Killed

        try:
            with monkeypatch.context() as patch:
                patch.setattr(Netlink, "transaction", dying)
                guarded.apply(new)
        except Killed:
            pass
        else:
            assert kill_at >= 2
            break
        verdicts = tuple(guarded.tcp(address, 443).passed for address in (old_only, new_only, never))
        assert verdicts in ((not first_time, False, False), (False, True, False)), kill_at
        met.add(verdicts)
    else:
        pytest.fail("it never came to the end")
    if when == "after":
        assert len(met) == 2, "both the old and the new state were met"


def test_a_kill_between_sets_and_rules_is_tidied_by_the_next_start(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(guarded)
    send = Netlink.transaction

    def dying(link: Netlink, messages: Sequence[Message]) -> None:
        send(link, messages)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Netlink, "transaction", dying)
        guarded.apply(rules({"192.0.2.0/24": "443/tcp"}))
    assert "r4_" in state(guarded)
    guarded.enforcer.close()
    guarded.enforcer = NftablesEnforcer("netpolicy", guarded.lab.host.name)
    guarded.enforcer.install("csp-")
    guarded.enforcer.attach(guarded.attachment, None)
    assert "r4_" not in state(guarded)
    assert state(guarded, referenced=True) == before
