"""An instance's life on a real Docker host: made, found again, repaired, removed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from instancing import NOTHING, STALE, World, lie, nonce, retried

from netpolicy.errors import Exit, UserError
from netpolicy.lab.addresses import OTHER_RESOLVERS, RESOLVERS
from sidecars import gate, instance
from sidecars.engine import ROLE
from sidecars.instance import Phase
from sidecars.instance.assess import FIREWALL_OFF
from sidecars.journal import Journal
from sidecars.names import tag
from sidecars.progress import Step

pytestmark = pytest.mark.docker


@pytest.mark.requirement("I1")
@pytest.mark.requirement("F10")
def test_up_makes_a_verified_instance_of_the_repository(world: World) -> None:
    (world.project.root / "draft").write_text("not committed")
    steps: list[Step] = []
    info = world.up(reporter=steps.append)
    assert (info.name, info.phase, info.reasons) == ("mercury", Phase.READY, ())
    assert info.branch == "main"
    assert info.notes == ("uncommitted changes on the host stay there (1 path); commit them to bring them along",)
    assert info.firewall.state == "enforced"
    assert info.verification is not None
    assert info.verification["state"] == "verified"
    # The blocked name, and then the address behind it, past the DNS.
    assert [proof["inside"]["outcome"] for proof in info.verification["blocked"]] == ["dns-denied", "refused"]
    assert [proof["control"]["outcome"] for proof in info.verification["blocked"]] == ["reached", "reached"]
    assert world.run("mercury", "git", "rev-parse", "HEAD") == world.git("rev-parse", "HEAD")
    assert world.run("mercury", "git", "config", "remote.origin.url") == "https://example.com/team/shop.git"
    assert world.run("mercury", "git", "status", "--porcelain", "--branch") == "## main"
    phases = list(dict.fromkeys(step.phase for step in steps))
    assert [p for p in phases if p in Phase.__members__.values()] == ["creating", "locked", "starting", "verifying"]
    assert world.list() == {"mercury": info.__class__(**{**vars_of(info), "notes": ()})}


def vars_of(info: instance.InstanceInfo) -> dict[str, object]:
    return {name: getattr(info, name) for name in info.__dataclass_fields__}


@pytest.mark.requirement("I5")
@pytest.mark.requirement("I1")
def test_inside_is_the_user_dev_without_rights_over_the_network_and_without_a_docker_socket(world: World) -> None:
    info = world.up("mercury", environment={"COLOUR": "blue"})
    assert world.run("mercury", "id", "-un") == "dev"
    status = world.run("mercury", "cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0
    bounding = int(fields["CapBnd"], 16)
    assert not bounding & (1 << 12 | 1 << 13 | 1 << 21), "NET_ADMIN, NET_RAW, SYS_ADMIN"
    assert fields["NoNewPrivs"] == "1"
    assert world.run("mercury", "sh", "-c", "ls /var/run/docker.sock /run/docker.sock 2>/dev/null; true") == ""
    assert world.run("mercury", "printenv", "COLOUR", "CSPACE_PROJECT", "CSPACE_INSTANCE") == (
        f"blue\n{world.project.name}\nmercury"
    )
    for folder in ("/workspace", "/home/dev/.claude", "/home/dev/.config/gh"):
        world.run("mercury", "touch", f"{folder}/mine")
        assert world.run("mercury", "sh", "-c", f"grep -c ' {folder} ' /proc/self/mounts") == "1"
    (container,) = (c for c in world.engine.containers.list({"cspace.project": world.project.name}))
    assert container.id == info.container_id
    assert container.labels[ROLE] == "dev"


@pytest.mark.requirement("I2")
def test_instances_without_a_name_are_planets_on_subnets_of_their_own(world: World) -> None:
    first, second = world.up(), world.up()
    assert (first.name, second.name) == ("mercury", "venus")
    assert not set(first.subnets) & set(second.subnets)
    assert set(world.list()) == {"mercury", "venus"}


@pytest.mark.requirement("I2")
def test_two_unnamed_at_once_get_two_names_and_two_subnets(world: World) -> None:
    found, errors = at_once(world.up, world.up)
    assert errors == []
    assert sorted(info.name for info in found) == ["mercury", "venus"]
    assert len({info.subnets for info in found}) == 2
    assert {info.phase for info in found} == {Phase.READY}


@pytest.mark.requirement("I2")
def test_two_at_once_with_the_same_name_end_with_one_instance(world: World) -> None:
    found, errors = at_once(lambda: world.up("mercury"), lambda: world.up("mercury"))
    assert errors == []
    assert len({info.container_id for info in found}) == 1
    assert {info.phase for info in found} == {Phase.READY}


@pytest.mark.requirement("I2")
def test_two_at_once_who_both_want_it_new_are_told_apart(world: World) -> None:
    found, errors = at_once(lambda: world.up("mercury", new=True), lambda: world.up("mercury", new=True))
    assert [info.name for info in found] == ["mercury"]
    assert [(error.code, error.exit_status) for error in errors] == [("name-taken", Exit.CONFLICT)]
    assert set(world.list()) == {"mercury"}


@pytest.mark.requirement("I2")
def test_two_people_at_once_are_told_apart_by_the_engine(world: World, tmp_path: Path) -> None:
    """Their lock files are not the same; the bridge's name is."""

    def of(person: str) -> instance.InstanceInfo:
        journal = Journal(tmp_path / person)
        return instance.up(world.engine, world.project, world.spec("mercury", new=True), journal=journal)

    found, errors = at_once(lambda: of("kim"), lambda: of("lou"))
    assert [info.phase for info in found] == [Phase.READY]
    assert [error.code for error in errors] == ["name-taken"]
    assert world.list()["mercury"].phase is Phase.READY


@pytest.mark.requirement("I2")
def test_a_name_with_a_slash_is_a_branch(world: World) -> None:
    info = world.up("fix/it")
    assert (info.name, info.branch) == ("fix-it", "fix/it")
    assert world.up("fix/it").container_id == info.container_id
    with pytest.raises(UserError, match="it was made for the branch fix/it"):
        world.up("Fix/it")


def test_up_again_is_quick_and_changes_nothing_that_is_right(world: World) -> None:
    before = world.up("mercury")
    world.run(
        "mercury", "sh", "-c", "echo mine > work; git -c user.name=K -c user.email=k@k commit -q --allow-empty -m x"
    )
    steps: list[Step] = []
    after = world.up("mercury", reporter=steps.append)
    assert after == before.__class__(**{**vars_of(before), "notes": ()})
    assert not {"creating", "locked", "starting", "verifying", "policy", "workspace"} & {step.phase for step in steps}
    assert world.run("mercury", "cat", "work") == "mine"


@pytest.mark.requirement("F11")
def test_a_stopped_container_is_not_ready_and_up_starts_it_with_its_work(world: World) -> None:
    before = world.up("mercury")
    world.run("mercury", "sh", "-c", "echo mine > work")
    world.engine.containers.stop(str(before.container_id), 1)
    assert world.list()["mercury"].phase is Phase.STOPPED
    with pytest.raises(UserError) as caught:
        world.run("mercury", "true")
    assert caught.value.code == "instance-stopped"
    after = world.up("mercury")
    assert (after.phase, after.container_id) == (Phase.READY, before.container_id)
    assert world.run("mercury", "cat", "work") == "mine"


@pytest.mark.requirement("F11")
def test_a_stopped_instance_never_runs_under_the_rules_it_had_before(world: World) -> None:
    site = world.machine.lab.site()
    world.policy = {"domains": ["api.github.com"], "allow": [f"{site.v4}:443/tcp"]}
    before, arrived = world.up("mercury"), nonce()
    assert world.send("mercury", "tcp", site.v4, "443", arrived)[0] == "sent"
    assert world.machine.lab.receiver.saw(arrived)
    world.engine.containers.stop(str(before.container_id), 1)
    world.policy = {"domains": ["api.github.com"]}
    phases, early, refused = [], [], nonce()

    def reporter(step: Step) -> None:
        phases.append(step.phase)
        if step.phase == "policy":
            # The container runs and the new rules are not applied yet.
            early.append(world.send("mercury", "tcp", site.v4, "443", refused)[0])

    assert world.up("mercury", reporter=reporter).phase is Phase.READY
    assert early == ["Connection refused"]
    assert not world.machine.lab.receiver.saw(refused)
    assert phases.index("locked") < phases.index("starting") < phases.index("policy")


@pytest.mark.requirement("F11")
def test_without_the_gate_nothing_is_called_ready_and_up_repairs_it(world: World) -> None:
    world.up("mercury")
    gate.remove(world.engine)
    (listed,) = world.list().values()
    assert (listed.phase, listed.firewall.state) == (Phase.DEGRADED, "unknown")
    assert "the gate does not run" in listed.reasons[0]
    assert world.up("mercury").phase is Phase.READY


@pytest.mark.requirement("F11")
def test_a_restarted_gate_has_its_policies_again_but_not_its_proof(world: World) -> None:
    world.up("mercury")
    found = gate.find(world.engine)
    assert found is not None
    world.engine.containers.kill(found.id)
    world.engine.containers.start(found.id)
    listed = retried(lambda: (info := world.list()["mercury"]).firewall.state == "enforced" and info)
    assert listed.phase is Phase.DEGRADED
    assert "have not been verified" in listed.reasons[0]
    assert world.up("mercury").phase is Phase.READY


@pytest.mark.requirement("F11")
def test_a_gate_that_has_forgotten_everything_keeps_the_network_locked(world: World) -> None:
    world.up("mercury")
    site = world.machine.lab.site("api.github.com")
    gate.remove(world.engine, state=True)
    gate.ensure(world.engine, options=STALE)
    assert world.list()["mercury"].phase is Phase.DEGRADED
    assert world.send("mercury", "tcp", site.v4, "443", "x")[0] == "Connection refused"
    assert world.up("mercury").phase is Phase.READY


def test_a_changed_policy_is_applied_by_the_next_up(world: World) -> None:
    one, two = world.machine.lab.site(), world.machine.lab.site()
    world.policy = {"domains": ["api.github.com", one.name]}
    first = world.up("mercury")
    reach = ["/usr/bin/curl", "-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}"]
    assert world.run("mercury", *reach, f"http://{one.name}/") == "200"
    world.policy = {"domains": ["api.github.com", two.name]}
    second = world.up("mercury")
    assert (second.phase, second.container_id) == (Phase.READY, first.container_id)
    assert second.firewall.ruleset != first.firewall.ruleset
    assert world.run("mercury", *reach, f"http://{two.name}/") == "200"
    assert world.run("mercury", *reach, f"http://{one.name}/", ok=None) == "000"


def test_what_would_be_undone_or_asks_others_is_applied_again_although_the_rules_are_the_same(world: World) -> None:
    name, dns = world.machine.lab.site().name, world.machine.lab.dns
    world.policy = {"domains": ["api.github.com", name]}
    first = world.up("mercury")

    def asked() -> str:
        return dns.queries(name)[-1].server

    assert asked() in RESOLVERS
    other = world.up("mercury", upstreams=(OTHER_RESOLVERS[0],))
    assert (other.phase, other.firewall.ruleset) == (Phase.READY, first.firewall.ruleset)
    assert asked() == OTHER_RESOLVERS[0]
    count = len(dns.queries(name))
    world.up("mercury", upstreams=(OTHER_RESOLVERS[0],))
    assert len(dns.queries(name)) == count
    found = gate.find(world.engine)
    assert found is not None
    with gate.conversation(world.engine, found) as client:
        own = tag(world.project.name, "mercury")
        assert client.apply(own, world.ruleset(), confirm_seconds=600).confirm_by is not None
        world.up("mercury")
        assert client.status(own).attachments[0].confirm_by is None
    assert asked() in RESOLVERS


@pytest.mark.requirement("F7")
def test_a_firewall_that_is_off_lets_everything_out_and_every_listing_says_so(world: World) -> None:
    site = world.machine.lab.site()
    world.policy = {"enabled": False}
    info = world.up("mercury")
    assert (info.phase, info.reasons, info.firewall.state) == (Phase.READY, (FIREWALL_OFF,), "off")
    assert world.list()["mercury"].reasons == (FIREWALL_OFF,)
    assert world.send("mercury", "tcp", site.v4, "1234", "x")[0] == "sent"
    world.policy = {"domains": ["api.github.com"]}
    assert world.up("mercury").reasons == ()
    assert world.send("mercury", "tcp", site.v4, "1234", "x")[0] == "Connection refused"


@pytest.mark.requirement("F10")
def test_a_blocked_name_that_answers_stops_the_instance(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lie(monkeypatch)
    with pytest.raises(UserError) as caught:
        world.up("mercury")
    assert caught.value.code == "firewall-breached"
    assert "example.com must be blocked, but it answered inside" in caught.value.message
    assert world.traces() == NOTHING


@pytest.mark.requirement("F10")
def test_a_breach_of_an_instance_with_work_stops_it_and_keeps_the_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.up("mercury")
    world.run("mercury", "sh", "-c", "echo mine > work")
    with monkeypatch.context() as patch:
        lie(patch)
        world.policy = {"domains": ["api.github.com", "other.example"]}
        with pytest.raises(UserError) as caught:
            world.up("mercury")
    assert caught.value.code == "firewall-breached"
    (listed,) = world.list().values()
    assert (listed.phase, listed.firewall.state) == (Phase.FAILED, "locked")
    assert "does not hold" in listed.reasons[0]
    world.policy = {"domains": ["api.github.com"]}
    after = world.up("mercury")
    assert (after.phase, after.container_id) == (Phase.READY, before.container_id)
    assert world.run("mercury", "cat", "work") == "mine"


@pytest.mark.requirement("F10")
def test_what_the_host_itself_cannot_reach_makes_it_degraded_not_broken(world: World) -> None:
    world.policy = {
        "domains": ["api.github.com", "gone.example"],
        "verify": {"blocked": ["nowhere.example"], "allowed": ["https://gone.example/"]},
    }
    info = world.up("mercury")
    assert info.phase is Phase.DEGRADED
    assert any("the host itself cannot reach nowhere.example" in reason for reason in info.reasons)
    assert any("the host itself cannot reach https://gone.example/" in reason for reason in info.reasons)
    assert any("gone.example" in reason and "not resolve" in reason for reason in info.reasons)
    assert world.list()["mercury"].reasons == info.reasons


def test_another_checkout_with_the_same_project_name_does_not_get_at_it(world: World, tmp_path: Path) -> None:
    world.up("mercury")
    other = World.create(world.machine, tmp_path / world.project.name)
    other.project = other.project.__class__(world.project.name, other.project.root)
    with pytest.raises(UserError, match=f"it belongs to the checkout {world.project.root}"):
        other.up("mercury")
    assert other.up().name == "venus"


# down


@pytest.mark.requirement("I8")
def test_down_leaves_nothing_and_keeps_what_is_shared(world: World) -> None:
    world.up("mercury")
    shared = f"cspace-{world.project.name}-memory"
    world.engine.volumes.create(shared, {"cspace.project": world.project.name, ROLE: "memory"})
    removed = world.down("mercury")
    assert f"cspace-{world.project.name}-mercury-workspace" in removed.removed
    assert world.traces() == {**NOTHING, "volumes": [shared]}
    world.engine.volumes.remove(shared)


@pytest.mark.requirement("I8")
@pytest.mark.parametrize("running", [True, False])
def test_down_refuses_over_unsaved_work_and_names_it(world: World, running: bool) -> None:
    info = world.up("mercury")
    world.run(
        "mercury", "sh", "-c", "echo x > draft; git checkout -q -b side; git commit -q --allow-empty -m 'night work'"
    )
    if not running:
        world.engine.containers.stop(str(info.container_id), 1)
    with pytest.raises(UserError) as caught:
        world.down("mercury")
    assert (caught.value.code, caught.value.exit_status) == ("unsaved-work", Exit.CONFLICT)
    assert "uncommitted: draft" in caught.value.message
    assert "night work" in caught.value.message
    assert caught.value.details["unsaved"]["commit_count"] == 1
    assert world.list()["mercury"].phase is (Phase.READY if running else Phase.STOPPED)
    lost = world.down("mercury", force=True).lost
    assert lost is not None
    assert lost.files == ("draft",)
    assert world.traces() == NOTHING


@pytest.mark.requirement("I8")
def test_work_that_the_host_has_is_not_lost(world: World) -> None:
    world.up("mercury")
    world.run("mercury", "git", "-c", "user.name=K", "-c", "user.email=k@k", "commit", "-q", "--allow-empty", "-m", "x")
    with pytest.raises(UserError, match="unpushed"):
        world.down("mercury")
    container = instance.container_of(world.engine, world.project.name, "mercury").id
    bundle = world.engine.containers.execs.run(
        container, ["git", "bundle", "create", "-q", "-", "--all"], cwd="/workspace", user="dev"
    ).stdout
    (world.project.root / ".git/mercury.bundle").write_bytes(bundle)
    world.git("fetch", "-q", ".git/mercury.bundle", "main:mercury")
    world.down("mercury")
    assert world.traces() == NOTHING


def test_down_of_what_is_not_there_names_what_is(world: World) -> None:
    with pytest.raises(UserError) as caught:
        world.down("mercury")
    assert (caught.value.code, caught.value.exit_status) == ("instance-missing", Exit.MISSING)
    world.up("mercury")
    with pytest.raises(UserError) as caught:
        world.down("mercuri")
    assert caught.value.hint == "Did you mean mercury?"


def test_down_works_without_journal_and_gate(world: World, tmp_path: Path) -> None:
    world.up("mercury")
    gate.remove(world.engine)
    world.down("mercury", journal=Journal(tmp_path / "another"))
    assert world.traces() == {**NOTHING, "journal": [f"{world.project.name}/mercury"]}


def test_a_volume_of_somebody_else_is_not_taken_over(world: World) -> None:
    name = f"cspace-{world.project.name}-mercury-claude"
    world.engine.volumes.create(name, {"owner": "kim"})
    try:
        with pytest.raises(UserError, match="does not belong to mercury"):
            world.up("mercury")
        assert world.traces() == NOTHING
        assert world.engine.volumes.get(name) is not None
    finally:
        world.engine.volumes.remove(name)


# exec


@pytest.mark.requirement("I7")
def test_exec_has_streams_and_an_exit_status(world: World) -> None:
    world.up("mercury")
    argv = ["sh", "-c", "read line; echo got $line; echo oops >&2; pwd; exit 7"]
    with instance.exec_stream(world.engine, world.project.name, "mercury", argv) as stream:
        stream.write(b"hello\n")
        stream.end_input()
        frames = list(stream.frames())
        assert stream.status() == 7
    assert b"".join(data for kind, data in frames if kind == 1) == b"got hello\n/workspace\n"
    assert b"".join(data for kind, data in frames if kind == 2) == b"oops\n"


@pytest.mark.requirement("I7")
def test_ssh_is_a_login_shell_with_a_terminal_of_the_given_size(world: World) -> None:
    world.up("mercury")
    with instance.exec_stream(
        world.engine, world.project.name, "mercury", instance.LOGIN, tty=True, size=(101, 33)
    ) as stream:
        stream.write(b"stty size; shopt -q login_shell && echo log''in; id -un; exit 3\n")
        text = b"".join(data for _, data in stream.frames()).decode()
        assert stream.status() == 3
    assert "33 101" in text
    assert "login\r\n" in text
    assert "dev\r\n" in text


def at_once(*acts: object) -> tuple[list[instance.InstanceInfo], list[UserError]]:
    """Run them in threads that start together."""
    barrier = threading.Barrier(len(acts))
    found: list[instance.InstanceInfo] = []
    errors: list[UserError] = []

    def work(act: object) -> None:
        barrier.wait(30)
        try:
            found.append(act())  # type: ignore[operator]  # any callable
        except UserError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found, errors
