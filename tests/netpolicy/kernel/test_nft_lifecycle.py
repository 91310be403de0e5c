"""Locked, enforced, locked again, gone: what holds at each step, and what survives the step."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from knocking import Guarded, Knock, carries, learned, nft_json, rules, wait_until

from netpolicy.errors import UserError
from netpolicy.kernel.links import Links
from netpolicy.kernel.nftables import NftablesEnforcer

pytestmark = pytest.mark.kernel


@pytest.mark.requirement("F1")
def test_from_prefix_lock_to_prefix_lock(guard: Callable[..., Guarded], version: int) -> None:
    one = guard()
    address, closed = one.fresh(version), Knock("ECONNREFUSED", arrived=False)
    assert one.tcp(address, 443) == closed, "nothing attached: the prefix is locked"
    one.enforcer.attach(one.attachment, None)
    assert one.enforcer.attachments() == [one.attachment.id]
    assert one.enforcer.in_force(one.attachment.id) is None
    assert one.tcp(address, 443) == closed, "attached: locked"
    ruleset = rules({address: "443/tcp"})
    one.apply(ruleset)
    assert one.enforcer.in_force(one.attachment.id) == ruleset.id
    assert one.tcp(address, 443).passed
    one.enforcer.attach(one.attachment, None)
    assert one.enforcer.in_force(one.attachment.id) is None
    assert one.tcp(address, 443) == closed, "attached again: locked again"
    one.apply(ruleset)
    assert one.tcp(address, 443).passed
    one.enforcer.detach(one.attachment.id)
    assert one.enforcer.attachments() == []
    assert one.tcp(address, 443) == closed, "detached: the prefix is locked"


@pytest.mark.requirement("F1")
def test_attach_before_the_interface_exists_and_after_it_was_made_anew(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    late = guarded.lab.add_workload()
    name = f"csp-{secrets.token_hex(4)}"
    attachment = replace(late.attachment("late"), interface=name)
    guarded.enforcer.attach(attachment, None)
    guarded.enforcer.apply(attachment, rules({address: "443/tcp"}), None)
    guarded.lab.host.run(["ip", "link", "set", late.interface, "down"])
    guarded.lab.host.run(["ip", "link", "set", late.interface, "name", name, "up"])
    for end in late.ends["host"]:
        guarded.lab.host.run(["ip", "address", "replace", end, "dev", name, "nodad"])
    assert guarded.tcp(address, 443, node=late).passed
    assert guarded.tcp(address, 80, node=late).refused


def test_an_attachment_can_move_to_another_interface(guarded: Guarded) -> None:
    address = guarded.fresh(4)
    guarded.apply(rules({address: "443/tcp"}))
    assert guarded.tcp(address, 443).passed
    guarded.enforcer.apply(replace(guarded.attachment, interface="csp-elsewhere"), rules({address: "443/tcp"}), None)
    assert guarded.tcp(address, 443).refused, "the interface it had is locked by its prefix"
    guarded.apply(rules({address: "443/tcp"}))
    assert guarded.tcp(address, 443).passed


def test_an_interface_has_one_attachment(guarded: Guarded) -> None:
    with pytest.raises(UserError) as refused:
        guarded.enforcer.attach(replace(guarded.attachment, id="other"), None)
    assert refused.value.code == "interface-taken"
    assert guarded.attachment.id in refused.value.message
    assert guarded.enforcer.attachments() == [guarded.attachment.id]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "With-Dash"},
        {"id": ""},
        {"id": "x" * 17},
        {"interface": "sixteen-bytes-xx"},
        {"interface": "a/b"},
        {"interface": ""},
    ],
    ids=str,
)
def test_what_cannot_name_kernel_objects_is_refused(guarded: Guarded, change: dict[str, str]) -> None:
    with pytest.raises(UserError) as refused:
        guarded.enforcer.attach(replace(guarded.attachment, **change), None)
    assert refused.value.code == "bad-attachment"


@pytest.mark.requirement("F1")
def test_a_learned_address_expires(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules(names={"a.example": "443/tcp"}))
    guarded.learn(learned("a.example", address, "443/tcp", seconds=0.5))
    assert guarded.tcp(address, 443).passed
    wait_until(lambda: not guarded.enforcer.learned(guarded.attachment.id), "the element expires")
    assert guarded.tcp(address, 443).refused


def test_learning_again_prolongs(guarded: Guarded, version: int) -> None:
    address = guarded.fresh(version)
    guarded.apply(rules(names={"a.example": "443/tcp 8000-9000/tcp"}))
    for seconds in (5, 500):
        guarded.learn(learned("a.example", address, "443/tcp 8000-9000/tcp", seconds))
        rows = guarded.enforcer.learned(guarded.attachment.id)
        assert [(str(row[0]), *row[1:4]) for row in rows] == [(address, 6, 443, 443), (address, 6, 8000, 9000)]
        assert all(seconds - 2 < row[4] <= seconds for row in rows)


def test_what_a_new_ruleset_keeps_of_what_was_learned(guarded: Guarded) -> None:
    """Each address keeps exactly the services that its names still have; lifetimes go on."""
    one, both, gone = (guarded.fresh(4) for _ in range(3))
    guarded.apply(rules(names={"a.example": "443/tcp", "b.example": "80/tcp 443/tcp", "c.example": "1-9/udp"}))
    guarded.learn(
        learned("a.example", one, "443/tcp", 100),
        learned("a.example", both, "443/tcp", 100),
        learned("b.example", both, "80/tcp 443/tcp", 100),
        learned("c.example", gone, "1-9/udp", 100),
    )

    def services() -> set[tuple[str, int, int, int]]:
        return {(str(row[0]), *row[1:4]) for row in guarded.enforcer.learned(guarded.attachment.id)}

    everything = services()
    assert everything == {
        (one, 6, 443, 443),
        (both, 6, 80, 80),
        (both, 6, 443, 443),
        (gone, 17, 1, 9),
    }
    guarded.apply(
        rules(
            {"203.0.113.0/24": "22/tcp"},
            {"a.example": "443/tcp", "b.example": "80/tcp 443/tcp", "c.example": "1-9/udp"},
        )
    )
    assert services() == everything
    guarded.apply(rules(names={"a.example": "8443/tcp", "b.example": "80/tcp"}))
    assert services() == {(one, 6, 8443, 8443), (both, 6, 8443, 8443), (both, 6, 80, 80)}
    assert all(90 < row[4] <= 100 for row in guarded.enforcer.learned(guarded.attachment.id))
    guarded.apply(rules(names={"b.example": "80/tcp"}))
    assert services() == {(both, 6, 80, 80)}
    guarded.apply(rules(names={"a.example": "8443/tcp", "b.example": "80/tcp"}))
    assert services() == {(both, 6, 80, 80)}, "what was taken away does not come back with the name"
    guarded.learn(learned("b.example", both, "80/tcp", 100))
    guarded.apply(rules(names={"a.example": "8443/tcp", "b.example": "80/tcp", "c.example": "1-9/udp"}))
    assert services() == {(both, 6, 80, 80)}, "nor when its address is learned for another name"


def test_an_answer_after_its_name_was_withdrawn_opens_nothing(guarded: Guarded) -> None:
    address = guarded.fresh(4)
    guarded.apply(rules(names={"a.example": "443/tcp", "b.example": "443/tcp"}))
    guarded.apply(rules(names={"b.example": "443/tcp"}))
    guarded.learn(learned("a.example", address, "443/tcp"), learned("b.example", address, "80/tcp"))
    assert guarded.tcp(address, 443).refused
    guarded.learn(learned("b.example", address, "443/tcp"))
    assert guarded.tcp(address, 443).passed


def test_learning_needs_a_policy(guarded: Guarded) -> None:
    with pytest.raises(UserError) as refused:
        guarded.learn(learned("a.example", "192.0.2.1", "443/tcp"))
    assert refused.value.code == "not-applied"


@pytest.mark.requirement("F11")
def test_a_second_process_takes_over_what_the_first_left(guarded: Guarded, version: int) -> None:
    """The gate was killed and starts again: install, apply. Rules, learned addresses, counters and connections live on."""
    address, named = guarded.fresh(version), guarded.fresh(version)
    ruleset = rules({address: "443/tcp"}, {"a.example": "443/tcp"})
    guarded.apply(ruleset)
    guarded.learn(learned("a.example", named, "443/tcp"))
    live = [guarded.connection(address, 443), guarded.connection(named, 443)]
    assert guarded.tcp(address, 80).refused
    refusals = guarded.enforcer.refused()
    assert guarded.enforcer.refused(guarded.attachment.id) == refusals
    assert guarded.enforcer.refused("other") == {}
    guarded.enforcer.close()
    assert guarded.tcp(address, 80).refused, "with nobody there the rules stay"
    guarded.enforcer = NftablesEnforcer("netpolicy", guarded.lab.host.name)
    guarded.enforcer.install("csp-")
    guarded.apply(ruleset)
    assert all(carries(sock) for sock in live)
    assert guarded.tcp(named, 443).passed
    assert guarded.enforcer.refused()[guarded.attachment.id].packets == refusals[guarded.attachment.id].packets + 1
    guarded.apply(rules(names={"a.example": "443/tcp 80/tcp"}))
    assert guarded.tcp(named, 80).passed, "it knows the names of what was learned before"


def test_two_tables_side_by_side(guard: Callable[..., Guarded], version: int) -> None:
    one, two = guard(), guard("other-wire", table="second", install=False)
    two.enforcer.install("other-")
    for each in (one, two):
        each.enforcer.attach(each.attachment, None)
    address = one.fresh(version)
    one.apply(rules({address: "443/tcp"}))
    two.apply(rules({address: "80/tcp"}))
    assert (one.tcp(address, 443).passed, one.tcp(address, 80).passed) == (True, False)
    assert (two.tcp(address, 443).passed, two.tcp(address, 80).passed) == (False, True)
    assert one.enforcer.attachments() == [one.attachment.id]
    one.enforcer.uninstall()
    assert two.tcp(address, 80).passed
    assert two.tcp(address, 443).refused


@pytest.mark.requirement("F1")
def test_nothing_of_others_is_touched(guarded: Guarded) -> None:
    host = guarded.lab.host
    host.run(["iptables", "-A", "FORWARD", "-s", "10.1.2.3", "-j", "ACCEPT"])
    host.run(["nft", "add", "table", "inet", "theirs", "{ set s { type ipv4_addr; elements = { 192.0.2.1 }; }; }"])

    def others() -> list[dict[str, Any]]:
        return [row for row in nft_json(host.name, "list", "ruleset") if "netpolicy" not in str(row)]

    before = others()
    assert len(before) > 4
    guarded.apply(rules({"192.0.2.0/24": "443/tcp"}, {"a.example": "443/tcp"}))
    guarded.learn(learned("a.example", "192.0.2.9", "443/tcp"))
    guarded.enforcer.detach(guarded.attachment.id)
    assert others() == before
    guarded.enforcer.uninstall()
    assert others() == before
    assert nft_json(host.name, "list", "ruleset")[1:] == before[1:], "and nothing of ours is left"


def test_detaching_leaves_no_sets_behind(guard: Callable[..., Guarded]) -> None:
    one, two = guard(), guard()

    def names(kind: str) -> set[str]:
        listing = nft_json(one.lab.host.name, "list", "table", "inet", "netpolicy")
        return {row[kind]["name"] for row in listing if kind in row}

    bare = {kind: names(kind) for kind in ("set", "chain", "counter", "map")}
    shared = {"203.0.113.0/24": "443/tcp"}
    one.apply(rules(shared | {"192.0.2.0/24": "443/tcp 8000-8010/udp"}, {"a.example": "1-5/tcp 443/tcp icmp"}))
    two.apply(rules(shared | {"192.0.2.0/25": "80/tcp"}))
    full = names("set")
    one.enforcer.detach(one.attachment.id)
    assert names("set") < full
    assert two.tcp("203.0.113.7", 443).passed, "a set that another attachment uses stays"
    two.enforcer.detach(two.attachment.id)
    assert {kind: names(kind) for kind in bare} == bare
    one.enforcer.detach(one.attachment.id)  # again: no error


def test_equal_ranges_are_one_set(guard: Callable[..., Guarded]) -> None:
    one, two = guard(), guard()
    nets = ("203.0.113.0/25", "203.0.113.128/25", "192.0.2.0/24")
    one.apply(rules(dict.fromkeys(nets, "443/tcp")))
    two.apply(rules(dict.fromkeys(("192.0.2.0/24", "203.0.113.0/24"), "80/tcp")))
    listing = nft_json(one.lab.host.name, "list", "table", "inet", "netpolicy")
    assert len([row for row in listing if row.get("set", {}).get("name", "").startswith("r4_")]) == 1


def test_missing_namespace_and_missing_rights() -> None:
    with pytest.raises(UserError) as refused:
        NftablesEnforcer("netpolicy", "no-such-namespace")
    assert refused.value.code == "no-namespace"


def test_an_error_names_the_message(guarded: Guarded) -> None:
    guarded.enforcer.uninstall()
    with pytest.raises(UserError) as refused:
        guarded.apply(rules())
    assert refused.value.code == "kernel-refused"
    assert "add set n4_" in refused.value.message
    assert refused.value.details["errno"] == "ENOENT"


def test_the_interface_is_found_by_its_name_and_not_its_number(guarded: Guarded) -> None:
    address = guarded.fresh(4)
    guarded.apply(rules({address: "443/tcp"}))
    assert guarded.tcp(address, 443).passed
    with Links(guarded.lab.host.name) as links:
        links.delete(guarded.attachment.interface)
        links.veth(guarded.attachment.interface, "eth0", peer_namespace=guarded.box.name)
        for end in guarded.box.ends["host"]:
            links.address(guarded.attachment.interface, end)
        links.up(guarded.attachment.interface)
    with Links(guarded.box.name) as links:
        for end in guarded.box.ends["workload"]:
            links.address("eth0", end)
        links.up("eth0")
        links.route("0.0.0.0/0", via=str(guarded.attachment.gateways[0]))
    assert guarded.tcp(address, 443).passed
    assert guarded.tcp(address, 80).refused
