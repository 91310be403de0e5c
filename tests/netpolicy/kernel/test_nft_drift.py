"""What another program does to our rules is seen, named and put right; what it does to its own is none of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from knocking import CLOCK, Guarded, carries, learned, nft, rules

from netpolicy.kernel.netlink import Message, Netlink
from netpolicy.kernel.nftables import NftablesEnforcer, drift
from netpolicy.lab import Lab

pytestmark = pytest.mark.kernel


@pytest.fixture
def shared(lab: Lab) -> Iterator[Guarded]:
    """A workload behind an enforcer that does not own its table, so that others can change it while it runs."""
    box = lab.add_workload("csp-shared")
    one = Guarded(lab, box, NftablesEnforcer("netpolicy", lab.host.name, owned=False), box.attachment("shared"))
    one.enforcer.install("csp-")
    yield one
    one.close()


@dataclass(frozen=True)
class Meddling:
    """A command of the nft program, and what is said of it."""

    command: str
    says: str


def handle(one: Guarded, chain: str, text: str) -> str:
    listing = nft(one.lab.host.name, "-a", "list", "chain", "inet", "netpolicy", chain)
    (found,) = (line for line in listing.splitlines() if text in line)
    return found.rsplit(maxsplit=1)[1]


MEDDLING = {
    "rule deleted": Meddling(
        "delete rule inet netpolicy out_shared handle {refusal}",
        "rules of chain out_shared were deleted (rule {refusal})",
    ),
    "accept added": Meddling("insert rule inet netpolicy out_shared accept", "rules were added to out_shared (rule "),
    "learned element": Meddling(
        'add element inet netpolicy n{version}_shared {{ {closed} . tcp . 443 timeout 1h comment "a.example" }}',
        "elements were added to set n{version}_shared ({closed} port 443)",
    ),
    "range element": Meddling(
        "add element inet netpolicy {ranges} {{ {closed} }}", "elements were added to set {ranges} ({closed})"
    ),
    "range emptied": Meddling("flush set inet netpolicy {ranges}", "elements were deleted from set {ranges} ("),
    "dispatch taken": Meddling(
        'delete element inet netpolicy outbound {{ "csp-shared" }}',
        "elements were deleted from set outbound (csp-shared)",
    ),
    "dispatch turned": Meddling(
        'delete element inet netpolicy outbound {{ "csp-shared" }}; add element inet netpolicy outbound {{ "csp-shared" : accept }}',
        "elements were added to set outbound (csp-shared)",
    ),
    "chain added": Meddling(
        "add chain inet netpolicy evil {{ type filter hook forward priority -5; }}", "chain evil was made"
    ),
    "chain emptied": Meddling("flush chain inet netpolicy forward", "rules of chain forward were deleted ("),
    "table deleted": Meddling("delete table inet netpolicy", "the table was deleted"),
    "ruleset flushed": Meddling("flush ruleset", "the table was deleted"),
}


@pytest.mark.requirement("F11")
@pytest.mark.parametrize("what", MEDDLING)
def test_what_others_do_to_our_rules_is_seen_named_and_put_right(shared: Guarded, version: int, what: str) -> None:
    address, named, closed = (shared.fresh(version) for _ in range(3))
    ruleset = rules({address: "443/tcp"}, {"a.example": "443/tcp"})
    shared.enforcer.attach(shared.attachment, None)
    shared.apply(ruleset)
    shared.learn(learned("a.example", named, "443/tcp", 3600))
    before = listing(shared)
    assert shared.enforcer.drifted() == []
    (ranges,) = re.findall(r"r[46]_[0-9a-f]{20}(?= \{)", before)
    facts = {
        "refusal": handle(shared, "out_shared", "goto no_shared"),
        "version": version,
        "closed": closed,
        "ranges": ranges,
    }
    meddling = MEDDLING[what]
    nft(shared.lab.host.name, stdin=meddling.command.format(**facts) + "\n")
    seen = CLOCK.monotonic()
    told = shared.enforcer.drifted()
    assert CLOCK.monotonic() - seen < 1
    (sentence,) = (line for line in told if line.startswith(meddling.says.format(**facts)))
    assert re.search(r", by nft \(process \d+\)$", sentence), sentence
    assert shared.enforcer.drifted() == told, "until it is put right"
    shared.enforcer.install("csp-")
    shared.apply(ruleset)
    assert listing(shared) == before
    assert shared.enforcer.drifted() == []
    assert shared.tcp(address, 443).passed
    assert shared.tcp(named, 443).passed
    assert shared.tcp(closed, 443).refused
    assert shared.tcp(address, 80).refused


def listing(one: Guarded) -> str:
    """The table without what time and order change."""
    text = nft(one.lab.host.name, "list", "table", "inet", "netpolicy")
    text = re.sub(r"packets \d+ bytes \d+| expires \w+| timeout \w+", "", text)
    blocks = text.split("\n\n")
    return "\n\n".join(sorted(block.strip("}\n") for block in blocks))


def test_a_connection_that_slipped_through_is_cut(shared: Guarded, version: int) -> None:
    allowed, closed = shared.fresh(version), shared.fresh(version)
    shared.apply(ruleset := rules({allowed: "443/tcp"}))
    nft(shared.lab.host.name, "insert", "rule", "inet", "netpolicy", "out_shared", "accept")
    slipped, kept = shared.connection(closed, 443), shared.connection(allowed, 443)
    shared.enforcer.install("csp-")
    shared.apply(ruleset)
    assert not carries(slipped)
    assert carries(kept)


def test_a_lock_after_meddling_forgets_what_may_be_forged(shared: Guarded) -> None:
    closed = shared.fresh(4)
    ruleset = rules(names={"a.example": "443/tcp"})
    shared.apply(ruleset)
    element = f'{{ {closed} . tcp . 443 timeout 1h comment "a.example" }}'
    nft(shared.lab.host.name, "add", "element", "inet", "netpolicy", "n4_shared", element)
    assert shared.tcp(closed, 443).passed, "control: it opens"
    shared.enforcer.install("csp-")
    shared.enforcer.attach(shared.attachment, None)
    shared.apply(ruleset)
    assert shared.tcp(closed, 443).refused


def test_what_others_do_elsewhere_is_none_of_ours(shared: Guarded) -> None:
    shared.apply(rules({"192.0.2.0/24": "443/tcp"}, {"a.example": "443/tcp"}))
    host = shared.lab.host
    host.run(["iptables", "-A", "FORWARD", "-s", "10.1.2.3", "-j", "ACCEPT"])
    for family in ("inet", "ip"):
        nft(
            host.name,
            stdin=f"add table {family} theirs\nadd chain {family} theirs c\nadd rule {family} theirs c accept\n",
        )
    nft(host.name, "add", "table", "ip", "netpolicy")  # a table of another family is another table
    nft(host.name, "delete", "table", "inet", "theirs")
    assert shared.enforcer.drifted() == []
    nft(host.name, "insert", "rule", "inet", "netpolicy", "out_shared", "accept")
    assert shared.enforcer.drifted() != [], "control: it listens"


def test_what_we_do_is_no_drift(shared: Guarded) -> None:
    for n in range(3):
        shared.apply(rules({f"10.{n}.{m}.0/24": "443/tcp" for m in range(0, 256, 2)}, {"a.example": "443/tcp"}))
        shared.learn(learned("a.example", "203.0.113.200", "443/tcp", 0.01))
        assert shared.tcp(shared.fresh(4), 443).refused
        assert shared.enforcer.drifted() == []
    shared.enforcer.attach(shared.attachment, None)
    shared.enforcer.detach(shared.attachment.id)
    assert shared.enforcer.drifted() == []


def test_more_changes_than_can_be_listened_to(shared: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The announcements overrun the socket: then the rules themselves are looked at."""
    monkeypatch.setattr(drift, "_BUFFER", 2048)
    shared.enforcer.uninstall()
    shared.enforcer.install("csp-")
    shared.apply(rules({"192.0.2.0/24": "443/tcp"}, {"a.example": "443/tcp"}))
    assert shared.enforcer.drifted() == []
    # What is written now is read back alone, and so are the ranges that it takes away.
    shared.apply(rules({"192.0.2.0/25": "443/tcp"}, {"b.example": "443/tcp"}))
    assert shared.enforcer.drifted() == []
    flood = "add table inet theirs\nadd chain inet theirs c\n" + "add rule inet theirs c accept\n" * 2000
    nft(shared.lab.host.name, stdin=flood)
    assert shared.enforcer.drifted() == [], "much happened, but nothing to us"
    nft(shared.lab.host.name, stdin=f"delete table inet theirs\n{flood}insert rule inet netpolicy out_shared accept\n")
    assert shared.enforcer.drifted() == ["the rules of chain out_shared are not as we wrote them"]


def test_a_change_while_a_large_policy_is_written(shared: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """While we write a lot the kernel announces nothing to us; its count of commits tells that somebody else wrote."""
    large = rules({f"10.{n // 128}.{n % 128 * 2}.0/24": "443/tcp" for n in range(4000)})
    shared.apply(rules())
    assert shared.enforcer.drifted() == []
    send = Netlink.transaction

    def disturbed(link: Netlink, messages: Sequence[Message]) -> None:
        send(link, messages)
        if any(message.what.startswith("fill r4_") for message in messages):
            nft(shared.lab.host.name, "insert", "rule", "inet", "netpolicy", "refuse", "accept")

    with monkeypatch.context() as patch:
        patch.setattr(Netlink, "transaction", disturbed)
        shared.apply(large)
    assert shared.enforcer.drifted() != []
    shared.enforcer.install("csp-")
    shared.apply(large)
    assert shared.enforcer.drifted() == []
    assert shared.tcp(shared.fresh(4), 443).refused


def test_others_writing_their_own_rules_while_a_large_policy_is_written(
    shared: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.apply(rules())
    assert shared.enforcer.drifted() == []
    send = Netlink.transaction

    def accompanied(link: Netlink, messages: Sequence[Message]) -> None:
        if any(message.what.startswith("fill r4_") for message in messages):
            nft(shared.lab.host.name, "add", "table", "inet", "theirs")
        send(link, messages)

    with monkeypatch.context() as patch:
        patch.setattr(Netlink, "transaction", accompanied)
        shared.apply(rules({f"10.{n // 128}.{n % 128 * 2}.0/24": "443/tcp" for n in range(4000)}))
    assert shared.enforcer.drifted() == []


def test_an_owned_table_is_out_of_reach(guard: Callable[..., Guarded]) -> None:
    one = guard()
    one.apply(rules())
    nft(one.lab.host.name, "flush", "ruleset")
    assert one.enforcer.drifted() == []
    assert one.tcp(one.fresh(4), 443).refused
