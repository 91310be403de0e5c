"""Links, addresses and routes, read back with the ip program."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from netpolicy import command
from netpolicy.errors import UserError
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links

pytestmark = pytest.mark.kernel


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    made = (netns.anonymous(), netns.anonymous())
    yield made
    for each in made:
        os.close(each)


def ip(namespace: int, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(netns.call(namespace, command.run, ["ip", "-j", *words]).text or "[]")
    return found


def test_a_wire_between_two_namespaces(pair: tuple[int, int]) -> None:
    one, two = pair
    with Links(one) as here, Links(two) as there:
        here.veth("left", "right", peer_namespace=two)
        assert (here.names()[-1], there.names()[-1]) == ("left", "right")
        for links, name, number in ((here, "left", 1), (there, "right", 2)):
            links.address(name, f"192.0.2.{number}/24")
            links.address(name, f"2001:db8::{number}/64")
            links.up("lo", name)
        there.route("0.0.0.0/0", via="192.0.2.1")
        there.route("::/0", via="2001:db8::1")
        there.route("203.0.113.0/24", interface="right")
        there.route("0.0.0.0/0", via="192.0.2.7")
    for target in ("192.0.2.1", "2001:db8::1"):
        netns.call(two, command.run, ["ping", "-c", "1", "-W", "5", target])
    routes = {(row["dst"], row.get("gateway"), row["dev"]) for row in ip(two, "route")}
    assert {("default", "192.0.2.7", "right"), ("203.0.113.0/24", None, "right")} <= routes
    assert ("default", "2001:db8::1") in {(row["dst"], row.get("gateway")) for row in ip(two, "-6", "route")}
    states = {
        row["local"]: row.get("tentative", False) for row in ip(one, "-6", "addr", "show", "left")[0]["addr_info"]
    }
    assert states["2001:db8::1"] is False, "usable at once"


def test_a_bridge(pair: tuple[int, int]) -> None:
    with Links(pair[0]) as links:
        links.bridge("br0")
        links.veth("a", "b")
        links.enslave("a", "br0")
        links.up("br0", "a", "b")
        assert {row["ifname"] for row in ip(pair[0], "link", "show", "master", "br0")} == {"a"}
        links.down("a")
        assert "UP" not in ip(pair[0], "link", "show", "a")[0]["flags"]
        links.delete("br0")
        links.delete("br0")
        assert "br0" not in links.names()


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (lambda links: links.up("missing"), "link-missing"),
        (lambda links: links.bridge("lo"), "link-exists"),
        (lambda links: links.bridge("x" * 16), "link-refused"),
        (lambda links: links.route("0.0.0.0/0", via="192.0.2.1"), "link-refused"),
        (lambda links: links.enslave("lo", "lo"), "link-refused"),
    ],
    ids=["missing", "exists", "long-name", "no-route", "no-bridge"],
)
def test_refusals(pair: tuple[int, int], work: Any, code: str) -> None:
    with Links(pair[0]) as links, pytest.raises(UserError) as refused:
        work(links)
    assert refused.value.code == code


def test_it_works_where_it_was_told_to_from_any_thread(pair: tuple[int, int]) -> None:
    """pyroute2's objects would silently work in the calling thread's namespace."""
    with Links(pair[0]) as links:
        netns.call(pair[1], links.bridge, "br0")
        assert "br0" in links.names()
    assert [row["ifname"] for row in ip(pair[1], "link")] == ["lo"]


def test_a_missing_namespace() -> None:
    with pytest.raises(UserError) as refused:
        Links("no-such-namespace")
    assert refused.value.code == "no-namespace"


def test_the_ports_of_a_bridge_and_what_they_are(pair: tuple[int, int]) -> None:
    one, _ = pair
    with Links(one) as links:
        links.bridge("br0")
        links.bridge("br1")
        assert links.ports("br0") == {}
        links.veth("left", "right")
        links.veth("other", "end")
        ip(one, "link", "add", "far", "type", "vxlan", "id", "7", "remote", "192.0.2.1", "dstport", "4789")
        for port, bridge in (("left", "br0"), ("far", "br0"), ("other", "br1")):
            links.enslave(port, bridge)
        assert links.ports("br0") == {"left": "veth", "far": "vxlan"}
