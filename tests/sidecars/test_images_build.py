"""Builds of a small image of the test's own, on the machine's engine: no network, names of this test only."""

from __future__ import annotations

import os
import re
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netpolicy.errors import UserError
from sidecars.engine import CONTENT, ROLE, VERSION, Engine
from sidecars.images import BuildOptions, Recipe, drift, ensure
from sidecars.images import recipe as recipes
from sidecars.images.base import BASE, ensure_base
from sidecars.images.recipe import our_version
from sidecars.install import ensure_engine
from sidecars.progress import Step, silent

pytestmark = pytest.mark.docker

GOOD = "# step: starting\nFROM debian:trixie-slim\n# step: working\nRUN echo $((6*7)) > /answer; cat /answer\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with ensure_engine().engine as engine:
        ensure_base(engine, silent)
        yield engine


class Toy:
    """A recipe whose template the test writes."""

    def __init__(self, folder: Path) -> None:
        self.recipe = Recipe("toy", f"cst-{os.getpid()}-{secrets.token_hex(3)}", (), "", False, True)
        self.folder = folder / "toy"
        self.folder.mkdir(parents=True)
        (self.folder / "requirements.lock").write_text("")

    @property
    def mark(self) -> dict[str, str | None]:
        """The label of everything that a build of ours makes."""
        return {"cspace.toy": self.recipe.repository}

    def write(self, dockerfile: str) -> None:
        marked = re.sub(
            r"^(FROM .*)$", rf"\1\nLABEL cspace.toy={self.recipe.repository}", dockerfile, flags=re.MULTILINE
        )
        (self.folder / "Dockerfile").write_text(marked)


@pytest.fixture
def toy(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    made = Toy(tmp_path / "templates")
    monkeypatch.setattr(recipes, "templates", lambda: tmp_path / "templates")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield made
    for image in engine.images.list(made.mark):
        engine.images.remove(image.id, force=True)
    assert engine.images.list(made.mark) == []


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.05)


@pytest.mark.requirement("I5")
def test_an_image_is_built_with_progress_and_labels_and_then_left_alone(engine: Engine, toy: Toy) -> None:
    toy.write(GOOD)
    steps: list[Step] = []
    made = ensure(engine, toy.recipe, steps.append)
    # The engine counts a step for each label that is set from outside, so the total is not the template's.
    told = [
        s.message for s in steps if re.fullmatch(rf"building {toy.recipe.repository}: step 3/\d+, working", s.message)
    ]
    assert told
    assert (made.labels[ROLE], made.labels[VERSION]) == ("image", our_version())
    assert len(made.labels[CONTENT]) == 16
    steps.clear()
    assert ensure(engine, toy.recipe, steps.append).id == made.id
    assert steps == []


@pytest.mark.requirement("I5")
def test_a_changed_template_is_built_anew_and_the_old_image_goes(engine: Engine, toy: Toy) -> None:
    toy.write(GOOD)
    first = ensure(engine, toy.recipe)
    assert drift(engine, recipes=(toy.recipe,)) == []
    toy.write(GOOD.replace("6*7", "6*8"))
    (found,) = drift(engine, recipes=(toy.recipe,))
    assert (found.image, found.kind) == (toy.recipe.repository, "content")
    assert ensure(engine, toy.recipe, options=BuildOptions(keep_stale=True)).id == first.id
    second = ensure(engine, toy.recipe)
    assert second.id != first.id
    assert engine.images.get(first.id) is None
    assert drift(engine, recipes=(toy.recipe,)) == []


@pytest.mark.requirement("I5")
def test_without_a_network_an_older_image_does_for_those_who_can_say_so(engine: Engine, toy: Toy) -> None:
    toy.write(GOOD)
    first = ensure(engine, toy.recipe)
    toy.write(
        "FROM debian:trixie-slim\n# step: fetching\nRUN echo 'Temporary failure resolving deb.example' >&2; exit 100\n"
    )
    said: list[str] = []
    assert ensure(engine, toy.recipe, older=said.append).id == first.id
    assert "is out of date and could not be built anew" in said[0]
    assert "do not reach the network" in said[0]
    with pytest.raises(UserError, match="do not reach the network"):
        ensure(engine, toy.recipe)
    toy.write("FROM debian:trixie-slim\nRUN exit 9\n")
    with pytest.raises(UserError, match="stopped at step"):
        ensure(engine, toy.recipe, older=said.append)
    assert len(said) == 1


def test_drift_names_another_version_and_a_missing_image(
    engine: Engine, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.write(GOOD)
    (missing,) = drift(engine, recipes=(toy.recipe,))
    assert missing.kind == "missing"
    ensure(engine, toy.recipe)
    monkeypatch.setattr("sidecars.images.staleness.our_version", lambda: "9.9.9")
    (other,) = drift(engine, recipes=(toy.recipe,))
    assert (other.kind, other.found, other.wanted) == ("version", our_version(), "9.9.9")
    assert "9.9.9" in str(other)


def test_a_failing_step_says_which_and_why_and_leaves_nothing(engine: Engine, toy: Toy) -> None:
    nonce = secrets.token_hex(4)
    toy.write(
        f"FROM debian:trixie-slim\n# step: breaking things\nRUN echo about-{nonce}; echo 'it broke' >&2; exit 9\n"
    )
    with pytest.raises(UserError) as caught:
        ensure(engine, toy.recipe)
    text = caught.value.as_text()
    assert caught.value.code == "build-failed"
    assert re.search(r"step 3/\d+ \(breaking things\)", text)
    assert "status 9" in text
    assert f"about-{nonce}" in text
    assert "it broke" in text
    log = Path(str(caught.value.details["log"]))
    assert str(log) in text
    assert "it broke" in log.read_text()
    assert engine.images.get(toy.recipe.name) is None
    assert engine.containers.list(toy.mark) == []


def test_a_template_that_is_no_dockerfile_is_readable(engine: Engine, toy: Toy) -> None:
    toy.write("FROM debian:trixie-slim\nRUM echo\n")
    with pytest.raises(UserError, match=r"(?i)unknown instruction: RUM") as caught:
        ensure(engine, toy.recipe)
    assert caught.value.code == "build-failed"


def test_a_reporter_that_raises_stops_the_build_in_a_silent_step(engine: Engine, toy: Toy) -> None:
    toy.write("FROM debian:trixie-slim\n# step: waiting\nRUN sleep 120\n")

    class Cancelled(BaseException):
        pass

    def report(step: Step) -> None:
        if "waiting" in step.message and step.seconds:
            raise Cancelled

    began = time.monotonic()
    with pytest.raises(Cancelled):
        ensure(engine, toy.recipe, report)
    assert time.monotonic() - began < 30
    until(lambda: not engine.containers.list(toy.mark), "the step's container is still there")
    assert engine.images.get(toy.recipe.name) is None


def test_ctrl_c_stops_the_build_and_leaves_nothing_half_made(engine: Engine, toy: Toy) -> None:
    toy.write("FROM debian:trixie-slim\n# step: waiting\nRUN sleep 120\n")
    program = (
        "import sys; from pathlib import Path\n"
        "from sidecars.engine import Engine; from sidecars.images import Recipe, ensure\n"
        "from sidecars.images import recipe as recipes\n"
        "recipes.templates = lambda: Path(sys.argv[1])\n"
        "ensure(Engine(), Recipe('toy', sys.argv[2], (), '', False, True), lambda s: print(s.message, flush=True))\n"
    )
    argv = [sys.executable, "-c", program, str(toy.folder.parent), toy.recipe.repository]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("waiting" in line for line in process.stdout)
        until(lambda: bool(engine.containers.list(toy.mark)), "the step has no container")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    until(lambda: not engine.containers.list(toy.mark), "the step's container is still there")
    assert engine.images.get(toy.recipe.name) is None
    # And the next one works.
    toy.write(GOOD)
    assert ensure(engine, toy.recipe).tags == (toy.recipe.name,)


def test_two_builds_at_once_make_one_image(engine: Engine, toy: Toy) -> None:
    toy.write("FROM debian:trixie-slim\n# step: working\nRUN sleep 1; date +%N > /when\n")
    program = (
        "import sys; from pathlib import Path\n"
        "from sidecars.engine import Engine; from sidecars.images import Recipe, ensure\n"
        "from sidecars.images import recipe as recipes\n"
        "recipes.templates = lambda: Path(sys.argv[1])\n"
        "print(ensure(Engine(), Recipe('toy', sys.argv[2], (), '', False, True)).id)\n"
    )
    argv = [sys.executable, "-c", program, str(toy.folder.parent), toy.recipe.repository]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=60)[0] for process in both}
    assert len(said) == 1
    assert said.pop().startswith("sha256:")


@pytest.mark.requirement("I5")
def test_certificates_and_arguments_reach_the_build(engine: Engine, toy: Toy, tmp_path: Path) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
    (tmp_path / "own.pem").write_text(pem)
    toy.write(
        "ARG BASE\nFROM $BASE\nARG NPM_REGISTRY\nCOPY certificates/ /c/\n"
        '# step: looking\nRUN echo "$NPM_REGISTRY" && cat /c/*.crt | grep -c QUJD && test "$(ls /c | wc -l)" -ge 1\n'
    )
    options = BuildOptions(certificates=(tmp_path / "own.pem",), arguments={"NPM_REGISTRY": "https://npm.example"})
    ensure(engine, toy.recipe, options=options)
    log = (tmp_path / "state/cspace/log" / f"build-{toy.recipe.repository}.log").read_text()
    assert "https://npm.example" in log


def test_a_base_that_is_nowhere_says_what_was_tried(engine: Engine, toy: Toy) -> None:
    toy.write("ARG BASE\nFROM $BASE\n")
    base = f"cst-no-such-{secrets.token_hex(4)}.invalid/base:1"
    with pytest.raises(UserError) as caught:
        ensure(engine, toy.recipe, options=BuildOptions(base=base))
    assert caught.value.code == "base-missing"
    assert base in caught.value.message
    assert "pull failed" in caught.value.message
    assert BASE not in caught.value.message
