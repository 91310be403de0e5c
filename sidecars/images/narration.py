"""A build's raw output, told as steps: which of how many, what it is for, and what went wrong in words that help."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from typing import Any

from netpolicy.clock import Clock
from netpolicy.errors import UserError
from sidecars.engine.longcalls import Message
from sidecars.progress import Reporter, Step
from sidecars.watched import Watched

_STEP = re.compile(r"^Step (\d+)/(\d+) : (.*)")
#: The engine's own lines between a program's.
_NOISE = re.compile(r"^( ---> |Removing intermediate container )")
#: Instructions that take no time are only told when they have a purpose of their own.
_QUICK = ("ARG", "ENV", "LABEL", "USER", "WORKDIR", "CMD", "ENTRYPOINT", "COPY", "FROM")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_KEPT_LINES = 200
_SHOWN_LINES = 8
#: What programs in a build print when it is not the build's fault; the first that is found decides.
_CAUSES = (
    (
        re.compile(r"no space left on device|disk quota exceeded|don't have enough free space", re.IGNORECASE),
        "disk-full",
        "the engine's disk is full",
        "Free space where the engine keeps its data ('docker info' names the Docker Root Dir); 'docker image prune' helps.",
    ),
    (
        re.compile(r"certificate verif|self.signed.cert|unable to get local issuer|x509: ", re.IGNORECASE),
        "build-untrusted",
        "a download's certificate is not trusted",
        "If a proxy inspects TLS here, put its certificate into /usr/local/share/ca-certificates/NAME.crt, or name it in the "
        "configuration.",
    ),
    (
        re.compile(
            r"temporary failure resolving|could not resolve|name or service not known|\b(EAI_AGAIN|ENOTFOUND)\b"
            r"|network is unreachable|connection timed out|\b(ETIMEDOUT|ECONNREFUSED)\b|unable to connect to",
            re.IGNORECASE,
        ),
        "build-offline",
        "the engine's build containers do not reach the network",
        "Check the network, DNS and proxy of the engine's default bridge: "
        "'docker run --rm debian:trixie-slim apt-get update'.",
    ),
)  # fmt: skip


class Narration:
    """Hears the messages of one build.

    Args:
        image: Its name, for people.
        dockerfile: The instructions; their ``# step:`` comments say what each is for.
        reporter: Told each step, and each second that one lasts.
        clock: For the seconds.
        log: File for the whole output.
    """

    def __init__(self, image: str, dockerfile: str, reporter: Reporter, clock: Clock, log: Path | None) -> None:
        self._image = image
        self._purposes = purposes(dockerfile)
        self._reporter = reporter
        self._clock = clock
        self._log = log
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._hints: list[str] = []
        """Lines of the present step that tell a cause, wherever they stood: what apt says first is long past when it gives up."""
        self._step = ""
        self._watched = Watched(reporter, Step("image", f"building {image}: sending the sources"), clock)

    def hear(self, message: Message | None) -> None:
        """Take one message of the engine; None is a beat. Raises what the reporter raises."""
        text = "" if message is None else str(message.get("stream", ""))
        if text and self._log is not None:
            with self._log.open("a") as log:
                log.write(text)
        for line in _COLOURS.sub("", text).splitlines():
            if found := _STEP.match(line):
                self._begin(int(found[1]), int(found[2]), found[3])
            elif line.strip() and not _NOISE.match(line):
                self._lines.append(line.rstrip())
                self._hints += [line] if any(cause[0].search(line) for cause in _CAUSES) else []
        self._watched.beat()

    def _begin(self, number: int, total: int, instruction: str) -> None:
        purpose = self._purposes.get(number, " ".join(instruction.split()))
        purpose = purpose if len(purpose) <= 80 else purpose[:77] + "..."
        self._step = f"step {number}/{total} ({purpose})"
        self._lines.clear()
        self._hints.clear()
        if number not in self._purposes and instruction.startswith(_QUICK):
            return
        step = Step("image", f"building {self._image}: step {number}/{total}, {purpose}", (number - 1) / total)
        self._watched = Watched(self._reporter, step, self._clock)

    def failure(self, error: UserError) -> UserError:
        """The error for people: which step, why, its last lines, and where the rest is."""
        if error.code in ("engine-unreachable", "engine-timeout", "engine-permission"):
            return error
        shown = list(self._lines)[-_SHOWN_LINES:]
        said = str(error.details.get("engine", error.message))
        where = f"building {self._image} stopped at {self._step}" if self._step else f"building {self._image} failed"
        details: dict[str, Any] = {"step": self._step, "output": list(self._lines), "log": str(self._log or "")}
        details["engine"] = error.details.get("engine", error.message)
        rest = f"\n  The whole output: {self._log}" if self._log else ""
        found = ((cause, text) for text in ("\n".join([*shown, said]), "\n".join(self._hints)) for cause in _CAUSES)
        for (pattern, code, why, hint), text in found:
            if pattern.search(text):
                return UserError(code, f"{where}: {why}", hint=f"{hint}{rest}", details=details)
        tail = "".join(f"\n    {line}" for line in shown)
        return UserError("build-failed", f"{where}: {_reason(error)}{tail}", hint=rest.strip() or None, details=details)


def _reason(error: UserError) -> str:
    words = str(error.details.get("engine", error.message))
    if found := re.search(r"returned a non-zero code: (\d+)", words):
        return f"the command ended with status {found[1]}"
    return words


def purposes(dockerfile: str) -> dict[int, str]:
    """What each instruction is for: its number (from 1, as the engine counts) to the ``# step:`` comment above it."""
    found: dict[int, str] = {}
    number, purpose, continued = 0, "", False
    for line in dockerfile.splitlines():
        text = line.strip()
        if text.startswith("#"):
            if text.startswith("# step:"):
                purpose = text.removeprefix("# step:").strip()
            continue
        if not text:
            continue
        if not continued:
            number += 1
            if purpose:
                found[number] = purpose
            purpose = ""
        continued = text.endswith("\\")
    return found
