from __future__ import annotations

from pathlib import Path

import pytest

from netpolicy.errors import UserError
from sidecars.engine.errors import refused
from sidecars.images.narration import Narration, purposes
from sidecars.images.recipe import templates
from sidecars.progress import Step

DOCKERFILE = """# A comment.
ARG BASE=x
# step: starting
FROM $BASE
LABEL a=b
# step: installing
RUN one \\
 && two \\
 # inside
 && three
RUN four
"""


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> float:
        return self.time


def narration(steps: list[Step], log: Path | None = None) -> tuple[Narration, Clock]:
    clock = Clock()
    return Narration("cspace-toy", DOCKERFILE, steps.append, clock, log), clock


def hear(heard: Narration, *lines: str) -> None:
    for line in lines:
        heard.hear({"stream": line})


def test_purposes_are_counted_as_the_engine_counts() -> None:
    assert purposes(DOCKERFILE) == {2: "starting", 4: "installing"}


@pytest.mark.parametrize("template", ["instance", "gate"])
def test_every_slow_step_of_our_templates_says_what_it_is_for(template: str) -> None:
    text = (templates() / template / "Dockerfile").read_text()
    known = purposes(text)
    instructions = [
        line for line, before in zip(text.splitlines(), ["", *text.splitlines()], strict=False)
        if line and not line.startswith(("#", " ")) and not before.endswith("\\")
    ]  # fmt: skip
    slow = [n for n, line in enumerate(instructions, 1) if line.startswith("RUN")]
    assert slow
    assert set(slow) <= set(known)
    # What the classic builder does not know.
    assert not [line for line in instructions if line.startswith(("RUN --", "COPY --chmod", "COPY --link", "ADD --"))]
    assert "<<" not in text


def test_steps_are_told_in_our_words_with_their_fraction() -> None:
    steps: list[Step] = []
    heard, _ = narration(steps)
    hear(heard, "Step 1/5 : ARG BASE=x\n", "Step 2/5 : FROM $BASE\n", " ---> 0ab\n", "Step 3/5 : LABEL a=b\n")
    hear(heard, "Step 4/5 : RUN one  && two\n", "Step 5/5 : RUN   four\n")
    assert [(s.message, s.fraction) for s in steps[1:]] == [
        ("building cspace-toy: step 2/5, starting", 0.2),
        ("building cspace-toy: step 4/5, installing", 0.6),
        ("building cspace-toy: step 5/5, RUN four", 0.8),
    ]
    assert {s.phase for s in steps} == {"image"}


def test_a_long_step_gives_signs_of_life_once_a_second() -> None:
    steps: list[Step] = []
    heard, clock = narration(steps)
    hear(heard, "Step 4/5 : RUN one\n")
    for _ in range(10):
        clock.time += 0.4
        heard.hear(None)
    repeats = [s.seconds for s in steps if s.seconds is not None]
    assert repeats == pytest.approx([1.2, 2.4, 3.6])
    assert {s.message for s in steps if s.seconds} == {"building cspace-toy: step 4/5, installing"}


def failed(*lines: str, engine: str = "The command '/bin/sh -c x' returned a non-zero code: 7") -> UserError:
    heard, _ = narration([])
    hear(heard, "Step 4/5 : RUN one\n", " ---> Running in 0ab\n", *lines)
    return heard.failure(refused(engine, "building the image cspace-toy:latest"))


def test_a_failure_names_the_step_and_shows_the_last_lines() -> None:
    error = failed(*(f"line {n}\n" for n in range(20)), "\x1b[91mE: Unable to locate package nope\n\x1b[0m")
    assert error.code == "build-failed"
    text = error.as_text()
    assert "step 4/5 (installing)" in text
    assert "ended with status 7" in text
    assert text.splitlines()[-1].strip() == "E: Unable to locate package nope"
    assert "line 13" in text
    assert "line 12" not in text
    assert "/bin/sh -c" not in text
    assert "\x1b" not in text
    assert "Running in" not in text


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk-full"),
        ("dpkg: error: failed to write (No space left on device)", "disk-full"),
        ("npm error ENOSPC: no space left on device, write", "disk-full"),
        ("W: Failed to fetch http://d/ Temporary failure resolving 'd'", "build-offline"),
        ("curl: (6) Could not resolve host: r", "build-offline"),
        ("npm error code ENOTFOUND", "build-offline"),
        ("curl: (60) SSL certificate problem: unable to get local issuer certificate", "build-untrusted"),
        ("npm error code SELF_SIGNED_CERT_IN_CHAIN", "build-untrusted"),
        ("ssl.SSLCertVerificationError: certificate verify failed: self-signed certificate", "build-untrusted"),
        ("ModuleNotFoundError: No module named 'x'", "build-failed"),
    ],
)
def test_causes_outside_of_the_build_are_named(line: str, code: str) -> None:
    error = failed(line)
    assert error.code == code
    assert code == "build-failed" or error.hint


def test_a_cause_is_known_though_a_long_complaint_came_after_it() -> None:
    complaint = [f"E: Unable to locate package p{n}\n" for n in range(40)]
    error = failed("  Could not resolve 'deb.example'\n", *complaint)
    assert error.code == "build-offline"
    heard, _ = narration([])
    hear(heard, "Step 4/5 : RUN one\n", "curl: (6) Could not resolve host: r\n", "Step 5/5 : RUN four\n", "it broke\n")
    assert heard.failure(refused("boom", "building")).code == "build-failed", "that was another step"


def test_the_engines_own_full_disk_is_one_clear_message() -> None:
    error = failed(engine="write /x: no space left on device")
    assert error.code == "disk-full"
    assert "\n" not in error.message


def test_the_whole_output_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    heard, _ = narration([], log)
    hear(heard, "Step 4/5 : RUN one\n", "a\n", "b\n")
    assert log.read_text() == "Step 4/5 : RUN one\na\nb\n"
    error = heard.failure(refused("boom", "building"))
    assert str(log) in str(error.hint)


def test_an_engine_that_went_away_is_said_as_that() -> None:
    heard, _ = narration([])
    gone = UserError("engine-unreachable", "gone")
    assert heard.failure(gone) is gone
