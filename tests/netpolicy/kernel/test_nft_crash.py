"""A failure or a kill at any moment leaves the old state or the new one, and never an open one."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from knocking import Guarded, carries, learned, nft, rules

from netpolicy.errors import UserError
from netpolicy.kernel import conntrack
from netpolicy.kernel.netlink import Message, Netlink
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.lab import Lab
from netpolicy.ruleset import Ruleset

pytestmark = pytest.mark.kernel


class Killed(BaseException):
    """What a killed process does: nothing more."""


@pytest.fixture(params=["forward", "output"])
def guarded(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Guarded]:
    """A workload that is locked: behind an enforcer, or with one inside."""
    box = lab.add_workload("csp-crash")
    attachment, place = box.attachment("crash"), lab.host.name
    with contextlib.ExitStack() as stack:
        if request.param == "output":
            attachment, place = replace(attachment, interface="", networks=(), hook="output"), box.name
            stack.enter_context(lab.nat())
        one = Guarded(lab, box, NftablesEnforcer("netpolicy", place), attachment)
        one.enforcer.install("csp-")
        one.enforcer.attach(attachment, None)
        yield one
        one.close()


def place_of(one: Guarded) -> str:
    return one.box.name if one.attachment.hook == "output" else one.lab.host.name


def restart(one: Guarded) -> None:
    one.enforcer.close()
    one.enforcer = NftablesEnforcer("netpolicy", place_of(one))
    one.enforcer.install("csp-")
    one.enforcer.attach(one.attachment, None)


def state(one: Guarded, *, referenced: bool = False) -> str:
    """What the second reader sees, without handles and what time changes; on request without sets nothing looks into."""
    text = nft(place_of(one), "-j", "list", "table", "inet", "netpolicy")
    rows = json.loads(text)["nftables"]
    if referenced:
        used = set(re.findall(r'"@(\w+)"', text))
        rows = [row for row in rows if not ("set" in row and row["set"]["name"] not in used)]
    for row in rows:  # the kernel lists a hash set's elements in no order, and notes refusals meanwhile
        if "elem" in row.get("set", {}):
            noted = row["set"]["name"].startswith("d")
            row["set"]["elem"] = [] if noted else sorted(row["set"]["elem"], key=str)
    lines = sorted(
        re.sub(r'"(handle|expires|timeout|packets|bytes)": \d+', "", json.dumps(row, sort_keys=True)) for row in rows
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
    old = rules(
        {old_only: "443/tcp 80/tcp", "10.1.0.0/16": "443/tcp"},
        {"a.example": "443/tcp 8000-8010/tcp", "*.w.example": "1-5/tcp"},
        host="3000/tcp",
        denied={"198.51.100.9": "*"},
        until={"10.1.0.0/16": 4102444800.0},
    )
    new = rules(
        {new_only: "443/tcp", "2001:db8:9::/64": "22/tcp", "10.2.0.0/16": "443/tcp", "0.0.0.0/0": "443/tcp"},
        {"b.example": "443/tcp 1-9/udp", "*.w.example": "3-9/tcp"},
        host="3001/tcp",
        denied={old_only: "443/tcp", never: "*", "2001:db8:9::/96": "22/tcp"},
        until={"10.2.0.0/16": 4102444801.0},
    )
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
        restart(guarded)
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
    restart(guarded)
    assert "r4_" not in state(guarded)
    assert state(guarded, referenced=True) == before


@pytest.mark.requirement("F11")
def test_a_kill_before_connections_are_cut_is_made_good_by_the_next_start(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, withdrawn = guarded.fresh(4), guarded.fresh(4)
    guarded.apply(rules(dict.fromkeys((kept, withdrawn), "443/tcp")))
    live = [guarded.connection(kept, 443), guarded.connection(withdrawn, 443)]
    new = rules({kept: "443/tcp"})

    def dying(*_: object) -> int:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(conntrack, "delete", dying)
        guarded.apply(new)
    assert carries(live[1]), "control: it was not cut"
    guarded.enforcer.close()
    guarded.enforcer = NftablesEnforcer("netpolicy", place_of(guarded))
    guarded.enforcer.install("csp-")
    guarded.apply(new)
    assert [carries(sock) for sock in live] == [True, False]
