"""Large policies, many attachments, many threads."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from knocking import Guarded, learned, nft_json, rules, services, wait_until

from netpolicy import command
from netpolicy.attachment import Attachment
from netpolicy.kernel import netns
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.ruleset import Learned

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace() -> Iterator[int]:
    made = netns.anonymous()
    yield made
    os.close(made)


def attachment(number: int) -> Attachment:
    v4, v6 = ip_network(f"10.213.{number // 16}.{number % 16 * 16}/28"), ip_network(f"fd5c:ace0:0:{number:x}::/64")
    return Attachment(f"a{number}", f"p/{number}", f"csp-{number}", (v4, v6), (v4[1], v6[1]))


@pytest.mark.requirement("F1")
def test_ten_thousand_ranges(guarded: Guarded, version: int) -> None:
    """Every other /28 (or /64): the first, one in the middle, the last, and what lies between them."""
    count = 10_000
    if version == 4:
        nets = [str(IPv4Network((0x64000000 + n * 32, 28))) for n in range(count)]
        near = [str(ip_address(0x64000000 + n * 32 + off)) for n in (0, 5000, 9999) for off in (0, 15, 16, 31)]
    else:
        base = 0x20010DB8_00AA << 80
        nets = [str(IPv6Network((base + (n << 65), 64))) for n in range(count)]
        near = [
            str(ip_address(base + (n << 65) + off))
            for n in (0, 5000, 9999)
            for off in (0, (1 << 64) - 1, 1 << 64, (1 << 65) - 1)
        ]
    guarded.apply(rules(dict.fromkeys(nets, "443/tcp")))
    assert [guarded.tcp(address, 443).passed for address in near] == [True, True, False, False] * 3
    listing = nft_json(guarded.lab.host.name, "list", "table", "inet", "netpolicy")
    (found,) = (row["set"] for row in listing if row.get("set", {}).get("name", "").startswith(f"r{version}_"))
    assert len(found["elem"]) == count
    guarded.apply(rules(dict.fromkeys(nets[1:], "443/tcp")))
    assert [guarded.tcp(address, 443).passed for address in near[:4]] == [False] * 4
    assert guarded.tcp(near[4], 443).passed


def test_many_attachments(namespace: int) -> None:
    enforcer = NftablesEnforcer("netpolicy", namespace)
    enforcer.install("csp-")
    common = {f"192.0.{n}.0/24": "443/tcp" for n in range(100)}
    everyone = [attachment(n) for n in range(60)]
    for each in everyone:
        enforcer.apply(each, rules(common, {"a.example": "443/tcp"}), 5300)
    assert enforcer.attachments() == sorted(each.id for each in everyone)
    listing = nft_json(namespace, "list", "sets")
    shared = [row for row in listing if row.get("set", {}).get("name", "").startswith("r4_")]
    assert len(shared) == 1, "equal ranges are in the kernel once"
    for each in everyone:
        enforcer.detach(each.id)
    assert enforcer.attachments() == []
    assert [row["set"]["name"] for row in nft_json(namespace, "list", "sets") if "set" in row] == ["ported"]
    enforcer.close()


def test_learning_and_applying_from_many_threads(namespace: int) -> None:
    """As the gate does: answers come in while policies change."""
    enforcer = NftablesEnforcer("netpolicy", namespace)
    enforcer.install("csp-")
    everyone = [attachment(n) for n in range(3)]
    variants = [rules({f"192.0.{n}.0/24": "443/tcp"}, {"a.example": "443/tcp"}) for n in range(2)]
    for each in everyone:
        enforcer.apply(each, variants[0], 5300)
    stop = threading.Event()

    def change(each: Attachment) -> int:
        done = 0
        while not stop.is_set():
            enforcer.apply(each, variants[done % 2], 5300)
            done += 1
        return done

    def learn(each: Attachment, block: int) -> None:
        for n in range(100):
            enforcer.learn(each.id, [learned("a.example", f"198.51.{block}.{n}", "443/tcp")])

    with ThreadPoolExecutor(max_workers=9) as pool:
        changing = [pool.submit(change, each) for each in everyone]
        learning = [pool.submit(learn, each, block) for each in everyone for block in (1, 2)]
        for future in learning:
            future.result(60)
        stop.set()
        assert all(future.result(60) for future in changing)
    for each in everyone:
        assert len(enforcer.learned(each.id)) == 200, "no answer is lost to a change of policy"
    enforcer.close()


def test_many_addresses_at_once_and_a_bound_on_them(namespace: int) -> None:
    enforcer = NftablesEnforcer("netpolicy", namespace)
    enforcer.install("csp-")
    one = attachment(0)
    enforcer.apply(one, rules(names={"a.example": "443/tcp"}), 5300)
    https = services("443/tcp")
    enforcer.learn(one.id, [Learned("a.example", ip_address(0x64000000 + n), https, 600) for n in range(5000)])
    # The kernel's listing of a hash set that is still growing may leave some out.
    wait_until(lambda: len(enforcer.learned(one.id)) == 5000, "all are listed")
    listing = nft_json(namespace, "list", "set", "inet", "netpolicy", f"n4_{one.id}")
    assert [row["set"]["size"] for row in listing if "set" in row] == [65536]
    enforcer.close()


_LIFE = """
import sys
sys.path[:0] = {path!r}
from ipaddress import ip_address, ip_network
from netpolicy.attachment import Attachment
from netpolicy.flow import Origin
from netpolicy.kernel.nftables import NftablesEnforcer
from netpolicy.ruleset import Learned, NameRule, RangeRule, Ruleset
from netpolicy.services import Service
web, origin = (Service(6, 443, 443),), Origin("", "", "")
one = Attachment("one", "one", "csp-one", (ip_network("10.0.0.0/28"),), (ip_address("10.0.0.1"),))
ranges = tuple(RangeRule(ip_network((0x64000000 + n * 512, 24)), web, origin) for n in range(30000))
enforcer = NftablesEnforcer()
enforcer.install("csp-")
enforcer.attach(one, None)
enforcer.apply(one, Ruleset("x", "enforce", (NameRule("a.example", web, origin),), ranges), 5300)
enforcer.learn("one", [Learned("a.example", ip_address("192.0.2.1"), web, 60)])
print(len(enforcer.learned("one")), enforcer.attachments(), enforcer.refused()["one"].packets)
enforcer.detach("one")
enforcer.uninstall()
print("pyroute2" in sys.modules, open("/proc/self/status").read().split("CapEff:")[1].split()[0])
"""


def test_net_admin_is_all_it_needs(namespace: int) -> None:
    """As in the gate's container: root with one capability, and no import of what it does not use."""
    words = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--no-new-privs"]
    program = _LIFE.format(path=[path for path in sys.path if path])
    done = netns.call(namespace, command.run, [*words, sys.executable, "-c", program])
    assert done.text.splitlines() == ["1 ['one'] 0", f"False {1 << 12:016x}"]
