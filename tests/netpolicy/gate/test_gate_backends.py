"""A gate that comes back with another backend: closed all along, and nothing of the former one is left in the kernel."""

from __future__ import annotations

import sys

import pytest
from gatekit import dig
from gateworld import World

from netpolicy.errors import Exit
from netpolicy.lab import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.requirement("F9")]


@pytest.mark.parametrize(("former", "later"), [("nftables", "ipset"), ("ipset", "nftables")])
def test_another_backend_takes_over(lab: Lab, former: str, later: str) -> None:
    world = World(lab, "--backend", former)
    site, new, bad = lab.site(), lab.site(), lab.site()
    before = world.apply(site)
    assert world.reaches(site.v4)
    world.daemon.kill()
    world.daemon._options = ("--backend", later)
    world.restart()
    assert world.client.hello().backend == later
    assert (world.state().phase, world.state().ruleset) == ("enforced", before.ruleset)
    # What only the former one's rules would refuse passes, so they are gone; what was denied is denied.
    world.apply(site, new)
    assert dig(world.box, new.name, server=world.gateway(0)).answers == (new.v4,)
    for one in (site, new):
        assert world.reaches(one.v4)
        assert world.reaches(one.v6)
    assert not world.reaches(bad.v4)
    assert not world.reaches(bad.v6)
    tables = lab.host.run(["nft", "list", "tables"]).text
    assert ("inet netpolicy" in tables) == (later == "nftables")
    assert bool(lab.host.run(["ipset", "list", "-n"]).text.split()) == (later == "ipset")
    world.client.close()


@pytest.mark.parametrize(("former", "later"), [("nftables", "ipset"), ("ipset", "nftables")])
def test_what_nobody_remembers_stays_closed_where_no_prefix_locks_it(lab: Lab, former: str, later: str) -> None:
    world = World(lab, "--no-prefix", "--backend", former)
    site, bad = lab.site(), lab.site()
    world.apply(site)
    assert world.reaches(site.v4)
    world.daemon.kill()
    (world.daemon.state / "attachments.json").unlink()
    world.daemon._options = ("--no-prefix", "--backend", later)
    world.restart()
    assert any("unknown attachments" in line for line in world.daemon.log)
    assert world.reaches(site.v4)
    assert not world.reaches(bad.v4)
    assert not world.reaches(bad.v6)
    world.client.close()


def test_the_rules_of_a_gate_that_has_ended_can_be_removed(lab: Lab) -> None:
    """On purpose only, and never under a gate that runs."""
    world = World(lab, "--backend", "nftables")
    bad = lab.site()
    assert not world.reaches(bad.v4)
    words = [sys.executable, "-m", "netpolicy", "gate", "uninstall"]
    assert "gate-running" in lab.host.run([*words, "--yes", "--json"], ok=(Exit.CONFLICT,)).text
    world.daemon.kill()
    assert "not-confirmed" in lab.host.run([*words, "--json"], ok=(Exit.BAD_INPUT,)).text
    assert not world.reaches(bad.v4)
    assert "no rules of netpolicy are left" in lab.host.run([*words, "--yes"]).text
    assert lab.host.run(["nft", "list", "tables"]).text == ""
    world.client.close()
