"""What `up` does about an instance that is not what is wanted any more, and what is said of one that somebody has changed."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
from instancing import World, lie

from netpolicy.errors import UserError
from sidecars.engine import PROJECT, ROLE
from sidecars.instance import Phase, phases
from sidecars.instance.assess import OLDER
from sidecars.instance.making import Making
from sidecars.project import Project

pytestmark = pytest.mark.docker

#: The module; the package offers the function of the same name.
up_module = importlib.import_module("sidecars.instance.up")


def containers(world: World) -> list[str]:
    found = world.engine.containers.list({PROJECT: world.project.name, ROLE: "dev"})
    return sorted(container.name for container in found)


def test_changed_settings_make_a_new_container_around_the_same_work(world: World) -> None:
    before = world.up("mercury", environment={"COLOUR": "blue"})
    world.run("mercury", "sh", "-c", "echo mine > work; echo gone > /tmp/scratch")
    after = world.up("mercury", environment={"COLOUR": "red"}, memory=1 << 30)
    assert after.container_id != before.container_id
    assert after.phase is Phase.READY
    assert "made anew, for its settings have changed" in after.notes[0]
    assert world.run("mercury", "printenv", "COLOUR") == "red"
    assert world.run("mercury", "cat", "work") == "mine"
    assert world.run("mercury", "sh", "-c", "ls /tmp/scratch 2>/dev/null; true") == ""
    assert containers(world) == [before.container]
    again = world.up("mercury", environment={"COLOUR": "red"}, memory=1 << 30)
    assert (again.container_id, again.notes) == (after.container_id, ())


def test_a_replacement_that_fails_leaves_the_former_container_running(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.up("mercury")

    def failing(making: Making) -> None:
        phases.start(making)
        assert len(containers(world)) == 2
        raise UserError("injected", "it broke")

    with monkeypatch.context() as patch:
        patch.setattr(up_module, "PHASES", tuple(failing if p is phases.start else p for p in phases.PHASES))
        with pytest.raises(UserError, match="it broke"):
            world.up("mercury", environment={"COLOUR": "red"})
    assert containers(world) == [before.container]
    assert world.list()["mercury"].container_id == before.container_id
    assert world.run("mercury", "sh", "-c", "echo ${COLOUR:-none}") == "none"


@pytest.mark.requirement("F10")
def test_a_breach_found_in_a_new_container_leaves_neither_running(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.up("mercury")
    world.run("mercury", "sh", "-c", "echo mine > work")
    policy, world.policy = world.policy, {"domains": ["api.github.com", "other.example"]}
    with monkeypatch.context() as patch:
        lie(patch)
        with pytest.raises(UserError) as caught:
            world.up("mercury", environment={"COLOUR": "red"})
    assert caught.value.code == "firewall-breached"
    assert containers(world) == [before.container]
    (listed,) = world.list().values()
    assert (listed.phase, listed.firewall.state) == (Phase.FAILED, "locked")
    found = world.engine.containers.get(str(before.container_id))
    assert found is not None
    assert not found.running
    world.policy = policy
    assert world.up("mercury").phase is Phase.READY
    assert world.run("mercury", "cat", "work") == "mine"


def test_a_replacement_that_was_cut_short_is_finished(world: World) -> None:
    before = world.up("mercury")
    own, aside = str(before.container), f"{before.container}-0badcafe"
    world.engine.containers.rename(own, aside)
    assert world.up("mercury").container == own
    # And one that was cut short later, with the new one in its place: of the two the one with the name counts.
    world.machine.host.docker(
        "create", "--name", aside, "--network", "none", "--label", f"{PROJECT}={world.project.name}",
        "--label", "cspace.instance=mercury", "--label", f"{ROLE}=dev", "cspace-instance:latest",
    )  # fmt: skip
    assert world.list()["mercury"].container == own
    world.engine.containers.stop(own, 1)
    assert world.up("mercury").container_id == before.container_id
    assert containers(world) == [own]


@pytest.mark.requirement("F1")
def test_a_second_network_is_said_loudly(world: World) -> None:
    """What leaves by it passes no firewall of ours, so nothing may call the instance ready."""
    info = world.up("mercury")
    world.machine.host.docker("network", "connect", "bridge", str(info.container))
    listed = world.list()["mercury"]
    assert listed.phase is Phase.FAILED
    assert "is also on bridge, which is outside of its firewall" in listed.reasons[0]
    assert f"docker network disconnect bridge {info.container}" in listed.reasons[0]
    assert world.up("mercury").phase is Phase.FAILED
    world.machine.host.docker("network", "disconnect", "bridge", str(info.container))
    assert world.list()["mercury"].phase is Phase.READY


def test_a_checkout_that_was_moved_keeps_its_instances(world: World) -> None:
    before = world.up("mercury")
    old = world.project.root
    moved = old.rename(old.with_name(f"{old.name}-moved"))
    world.project = Project(world.project.name, moved)
    after = world.up("mercury")
    assert after.container_id == before.container_id
    assert after.notes == (f"it was made from {old}, which is not there any more; this checkout is taken for the same",)
    old.mkdir()
    with pytest.raises(UserError, match="it belongs to the checkout"):
        world.up("mercury")


def test_an_older_image_makes_it_degraded_until_it_is_built(world: World) -> None:
    why = "cspace-instance is out of date and could not be built anew: nobody answers"
    info = world.up("mercury", shortcomings=(why,))
    assert (info.phase, info.reasons) == (Phase.DEGRADED, (f"{OLDER}{why}",))
    assert world.list()["mercury"] == replace(info, notes=())
    assert world.up("mercury").phase is Phase.READY
    assert world.list()["mercury"].phase is Phase.READY
