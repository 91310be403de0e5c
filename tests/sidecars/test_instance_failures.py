"""A start that fails half-way leaves nothing, and the next one works."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from instancing import NOTHING, World

from netpolicy.errors import Exit, UserError
from sidecars import gate
from sidecars.engine import VolumeInfo
from sidecars.engine.containers import Containers
from sidecars.engine.networks import Networks
from sidecars.engine.volumes import Volumes
from sidecars.instance import Phase, phases
from sidecars.instance.making import Making
from sidecars.journal import Key
from sidecars.progress import Step

pytestmark = pytest.mark.docker

#: The module; the package offers the function of the same name.
up_module = importlib.import_module("sidecars.instance.up")
PHASES = [phase.__name__ for phase in phases.PHASES]


class Cancelled(Exception):
    """What a reporter raises whose listener has gone."""


def broken_after(phase: str, error: BaseException) -> tuple[Callable[[Making], None], ...]:
    """The phases, with one that fails when its work is done."""

    def failing(work: Making) -> None:
        getattr(phases, phase)(work)
        raise error

    return tuple(failing if known.__name__ == phase else known for known in phases.PHASES)


@pytest.mark.requirement("I1")
@pytest.mark.parametrize("error", [UserError("injected", "injected"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_failure_after_any_phase_leaves_nothing_and_the_next_up_works(
    world: World, monkeypatch: pytest.MonkeyPatch, phase: str, error: BaseException
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(up_module, "PHASES", broken_after(phase, error))
        with pytest.raises(type(error)):
            world.up("mercury")
    assert world.traces() == NOTHING
    if phase == PHASES[-1]:
        assert world.up("mercury").phase is Phase.READY


def test_a_reporter_that_cancels_at_any_step_leaves_nothing(world: World) -> None:
    steps: list[str] = []
    wanted = 0

    def cancel(step: Step) -> None:
        steps.append(step.message)
        if len(steps) > wanted:
            raise Cancelled(step.message)

    while True:
        steps.clear()
        try:
            info = world.up("mercury", reporter=cancel)
        except Cancelled:
            assert world.traces() == NOTHING, f"cancelled at {steps[wanted]!r}"
            wanted += 1
        else:
            break
    assert wanted >= 8
    assert info.phase is Phase.READY


@pytest.mark.parametrize("phase", PHASES[2:])
def test_a_failing_repair_keeps_the_instance_and_its_work(
    world: World, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    before = world.up("mercury")
    world.run("mercury", "sh", "-c", "echo mine > work")
    world.engine.containers.stop(str(before.container_id), 1)
    with monkeypatch.context() as patch:
        patch.setattr(up_module, "PHASES", broken_after(phase, UserError("injected", "it broke")))
        with pytest.raises(UserError):
            world.up("mercury")
    (listed,) = world.list().values()
    assert (listed.phase, listed.reasons) == (Phase.FAILED, ("it broke",))
    assert world.up("mercury").container_id == before.container_id
    assert world.run("mercury", "cat", "work") == "mine"


@pytest.mark.parametrize("at", ["reserving", "starting the container", "packing", "verifying"])
def test_ctrl_c_leaves_nothing(world: World, at: str) -> None:
    process = start(world)
    assert process.stdout is not None
    for line in process.stdout:
        if at in line:
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 130, errors
    assert world.traces() == NOTHING


@pytest.mark.parametrize("part", [Networks, Volumes, Containers], ids=lambda part: part.__name__.lower())
def test_ctrl_c_during_a_request_waits_for_it(world: World, monkeypatch: pytest.MonkeyPatch, part: Any) -> None:
    """A request that is abandoned is carried out all the same, after the clean-up has looked."""
    original, requests = part.create, []

    def create(*arguments: Any) -> Any:
        answer: list[Any] = []
        requests.append(threading.Thread(target=lambda: answer.append(original(*arguments))))
        requests[-1].start()
        os.kill(os.getpid(), signal.SIGINT)
        requests[-1].join()
        return answer[0]

    with monkeypatch.context() as patch:
        patch.setattr(part, "create", create)
        with pytest.raises(KeyboardInterrupt):
            world.up("mercury")
    for request in requests:
        request.join(60)
    assert len(requests) == 1
    assert world.traces() == NOTHING


@pytest.mark.requirement("I2")
@pytest.mark.parametrize("at", ["locking", "applying", "packing"])
@pytest.mark.parametrize("then", ["up", "down"])
def test_a_killed_start_is_told_and_taken_up_or_removed(world: World, at: str, then: str) -> None:
    process = start(world)
    assert process.stdout is not None
    for line in process.stdout:
        if at in line:
            process.kill()
            break
    process.communicate(timeout=90)
    (listed,) = world.list().values()
    assert listed.phase in (Phase.FAILED, Phase.LOCKED, Phase.DEGRADED)
    assert "'cspace up mercury'" in listed.reasons[0]
    if then == "up":
        assert world.up("mercury").phase is Phase.READY
        assert world.run("mercury", "git", "status", "--porcelain") == ""
    else:
        world.down("mercury")
        assert world.traces() == NOTHING


def test_while_it_is_being_made_it_is_listed_with_its_phase(world: World) -> None:
    seen: dict[str, Phase] = {}

    def look(step: Step) -> None:
        listed = world.list().get("mercury")
        if listed is not None:
            seen[step.phase] = listed.phase
            assert str(os.getpid()) in listed.reasons[0]

    world.up("mercury", reporter=look)
    assert seen["locked"] is Phase.LOCKED
    assert seen["starting"] is Phase.STARTING
    assert seen["verifying"] is Phase.VERIFYING


def test_an_interrupted_removal_is_told_and_finished(world: World) -> None:
    world.up("mercury")

    def cancel(step: Step) -> None:
        if "volume" in step.message:
            raise Cancelled

    with pytest.raises(Cancelled):
        world.down("mercury", reporter=cancel)
    (listed,) = world.list().values()
    assert listed.phase is Phase.FAILED
    assert "'cspace down mercury' finishes it" in listed.reasons[0]
    world.down("mercury")
    assert world.traces() == NOTHING


def test_what_cannot_be_removed_is_told_with_its_command(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(up_module, "PHASES", broken_after("start", UserError("injected", "it broke")))

        def stuck(_self: object, name: str) -> bool:
            raise UserError("volume-in-use", f"{name} is in use")

        patch.setattr(Volumes, "remove", stuck)
        with pytest.raises(UserError) as caught:
            world.up("mercury")
    volume = f"cspace-{world.project.name}-mercury-claude"
    assert {"what": f"the volume {volume}", "command": f"docker volume rm {volume}"} in caught.value.details[
        "left_over"
    ]
    traces = world.traces()
    assert len(traces["volumes"]) == 3
    assert (traces["containers"], traces["networks"], traces["attached"]) == ([], [], [])
    (listed,) = world.list().values()
    assert listed.phase is Phase.FAILED
    world.down("mercury")
    assert world.traces() == NOTHING


def test_an_image_that_is_gone_is_said_before_anything_is_made(world: World) -> None:
    steps: list[Step] = []
    with pytest.raises(UserError) as caught:
        world.up("mercury", image="gone:latest", reporter=steps.append)
    assert (caught.value.code, caught.value.exit_status) == ("image-missing", Exit.MISSING)
    assert "cspace image build" in str(caught.value.hint)
    assert steps == []
    assert world.traces() == NOTHING


def test_a_container_that_cannot_start_leaves_nothing(world: World) -> None:
    with pytest.raises(UserError) as caught:
        world.up("mercury", processors=4096.0)
    assert caught.value.code == "engine-refused"
    assert world.traces() == NOTHING


def test_a_full_disk_leaves_nothing_and_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.project.root / "big").write_bytes(os.urandom(1 << 20))
    world.git("add", "big")
    world.git("-c", "user.name=K", "-c", "user.email=k@k", "commit", "-q", "-m", "big")

    def small(_self: Volumes, name: str, labels: dict[str, str]) -> VolumeInfo:
        words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
        options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=256k,uid=1000"]
        world.machine.host.docker("volume", "create", *words, *options, name)
        return VolumeInfo(name, labels, None)

    with monkeypatch.context() as patch:
        patch.setattr(Volumes, "create", small)
        with pytest.raises(UserError) as caught:
            world.up("mercury")
    assert "No space left on device" in caught.value.message
    assert world.traces() == NOTHING


def test_a_gate_that_does_not_start_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.remove(world.engine)
    with monkeypatch.context() as patch:
        patch.setattr(gate, "SOCKET", "/proc/nowhere/gate.sock")
        patch.setattr(gate, "HELLO_SECONDS", 5.0)
        with pytest.raises(UserError) as caught:
            world.up("mercury")
    assert caught.value.code == "gate-failed"
    assert world.traces() == NOTHING
    assert world.up("mercury").phase is Phase.READY


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda root: subprocess.run(["rm", "-rf", f"{root}/.git"], check=True), "not-a-repository"),
        (lambda root: subprocess.run(["git", "-C", root, "update-ref", "-d", "HEAD"], check=True), "no-commits"),
    ],
    ids=["not-a-repository", "no-commits"],
)
@pytest.mark.parametrize("name", [None, "mercury"])
def test_a_bad_repository_is_said_before_anything_is_made(
    world: World, prepare: Callable[[str], object], code: str, name: str | None
) -> None:
    prepare(str(world.project.root))
    with pytest.raises(UserError) as caught:
        world.up(name)
    assert caught.value.code == code
    assert world.traces() == NOTHING


def test_somebody_at_work_is_waited_for_or_named(world: World) -> None:
    world.up("mercury")
    key = Key(str(world.engine.address), world.project.name, "mercury")
    steps: list[Step] = []
    with world.journal.lock(key):
        with pytest.raises(UserError) as caught:
            world.up("mercury", wait_seconds=0.3, reporter=steps.append)
        assert caught.value.code == "instance-busy"
        with pytest.raises(UserError) as caught:
            world.up("mercury", new=True)
        assert caught.value.code == "name-taken"
    assert any(f"waiting for process {os.getpid()}" in step.message for step in steps)
    assert world.up("mercury").phase is Phase.READY


PROGRAM = """
import json, sys
from pathlib import Path
from typing import Any
from netpolicy.policy import parse
from netpolicy.ruleset import Ruleset
from sidecars import images, instance
from sidecars.engine import Engine
from sidecars.instance import InstanceSpec
from sidecars.project import Project

url, root, ruleset = sys.argv[1:4]
try:
    instance.up(
        Engine(url), Project(Path(root).name, Path(root)),
        InstanceSpec(
            ruleset=Ruleset.from_json(json.loads(ruleset)), verify=parse({}, source="test").verify, image=images.INSTANCE.name,
            name="mercury", build=images.BuildOptions(keep_stale=True), verify_seconds=20,
        ),
        lambda step: print(step.message, flush=True),
    )
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(world: World) -> subprocess.Popen[str]:
    """`up` in a process of its own, its steps on standard output."""
    argv = [sys.executable, "-c", PROGRAM, world.engine.address.url, str(world.project.root)]
    return subprocess.Popen(
        [*argv, json.dumps(world.ruleset().to_json())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
