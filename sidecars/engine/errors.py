"""What an engine's refusals mean to people: every exception of the SDK becomes one `UserError`.

The engine tells its reasons only in prose, and the prose differs between versions; the phrases below are those of moby 20.10 to 28.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import docker.errors
import requests.exceptions
import urllib3.exceptions

from netpolicy.errors import Exit, UserError
from sidecars.engine.address import Address


@dataclass(frozen=True, slots=True)
class _Reason:
    code: str
    pattern: re.Pattern[str]
    hint: str | None
    exit_status: int = Exit.FAILED


def _reason(code: str, pattern: str, hint: str | None = None, exit_status: int = Exit.FAILED) -> _Reason:
    return _Reason(code, re.compile(pattern, re.IGNORECASE), hint, exit_status)


#: The first that matches decides, so the narrow ones stand first.
_REASONS = (
    _reason(
        "disk-full",
        r"no space left on device|not enough space|disk quota exceeded",
        "Free space where the engine keeps its data ('docker info' names the Docker Root Dir); 'docker image prune' helps.",
    ),
    _reason("name-taken", r"name \S+ is already in use|network with name \S+ already exists", None, Exit.CONFLICT),
    _reason("interface-taken", r"networks have same bridge name|bridge name already exists", None, Exit.CONFLICT),
    _reason(
        "pools-exhausted",
        r"non-overlapping IPv[46] address pool among the defaults|all predefined address pools have been fully subnetted",
        "Remove networks that are not used any more: 'docker network prune'.",
        Exit.CONFLICT,
    ),
    _reason(
        "subnet-taken",
        r"pool overlaps with other one|invalid pool request|networks have overlapping|overlaps with existing",
        "Another network uses this range; choose another.",
        Exit.CONFLICT,
    ),
    _reason("address-taken", r"address already in use$|address \S+ is already in use|no available IPv[46] addresses",
            None, Exit.CONFLICT),
    _reason(
        "port-taken",
        r"port is already allocated|bind for \S+ failed|bind: address already in use|ports are not available",
        "Another program listens on that port of the host.",
        Exit.CONFLICT,
    ),
    _reason("image-missing", r"no such image|manifest unknown|manifest for \S+ not found", None, Exit.MISSING),
    _reason(
        "registry-denied",
        r"pull access denied|unauthorized|authentication required|denied: requested access",
        "Log in to the registry with 'docker login', or check the image's name.",
    ),
    _reason(
        "registry-unreachable",
        r"no such host|server misbehaving|i/o timeout|tls handshake timeout|client\.timeout exceeded"
        r"|context deadline exceeded|dial tcp|connection refused|network is unreachable|x509: |registry\S* request",
        "Check the engine's way to the registry (network, proxy, certificates).",
    ),
    _reason("container-missing", r"no such container|container \S+ is not found", None, Exit.MISSING),
    _reason("network-missing", r"no such network|network \S+ not found", None, Exit.MISSING),
    _reason("volume-missing", r"no such volume|get \S+: no such volume", None, Exit.MISSING),
    _reason("exec-missing", r"no such exec", None, Exit.MISSING),
    _reason("volume-in-use", r"volume is in use", "Remove the containers that use it first.", Exit.CONFLICT),
    _reason("network-in-use", r"has active endpoints", "Remove the containers that are on it first.", Exit.CONFLICT),
    _reason("image-in-use", r"image is being used|image has dependent child images|must be forced", None, Exit.CONFLICT),
    _reason("path-missing", r"could not find the file|no such container:path|not a directory|lstat ", None, Exit.MISSING),
    _reason("not-running", r"is not running|is paused|is restarting", None, Exit.CONFLICT),
    _reason(
        "command-missing", r"executable file not found|no such file or directory: unknown|exec: .*no such file",
        None, Exit.MISSING,
    ),
)  # fmt: skip


class Refusal(OSError):
    """An engine's refusal on a connection of our own: its HTTP status and its words."""

    def __init__(self, http_status: int, words: str) -> None:
        super().__init__(words)
        self.http_status = http_status
        self.words = words


class LinkFailed(ConnectionError):
    """What a program that makes the connection for us (ssh) said when it could not."""


@contextmanager
def explained(doing: str, address: Address) -> Iterator[None]:
    """Turn everything that the SDK and its transports raise into a `UserError`.

    Args:
        doing: What was being done and to what, e.g. ``creating the network cspace-shop-mercury``.
        address: The engine, for messages about not reaching it.
    """
    try:
        yield
    except UserError:
        raise
    except (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError,
            OSError) as error:  # fmt: skip
        raise explain(error, doing, address) from error


def explain(error: BaseException, doing: str, address: Address) -> UserError:
    """The `UserError` for an exception of the SDK."""
    if isinstance(error, Refusal):
        return refused(error.words, doing, status=error.http_status)
    api = next((e for e in _chain(error) if isinstance(e, docker.errors.APIError)), None)
    if api is not None:
        return refused(str(api.explanation or api), doing, status=api.status_code)
    return _unreachable(error, doing, address)


def refused(explanation: str, doing: str, *, status: int | None = None) -> UserError:
    """The `UserError` for an engine's own words; also for errors that arrive inside a stream (build, pull)."""
    words = explanation.strip() or "the engine gave no reason"
    found = next((reason for reason in _REASONS if reason.pattern.search(words)), None)
    details: dict[str, object] = {"engine": words}
    if status is not None:
        details["status"] = status
    message = f"{doing}: {_brief(words)}"
    if found is None:
        return UserError("engine-refused", message, details=details)
    return UserError(found.code, message, hint=found.hint, exit_status=found.exit_status, details=details)


def _brief(words: str) -> str:
    one = " ".join(words.split())
    return one.removeprefix("Error response from daemon: ").rstrip(".")


def _unreachable(error: BaseException, doing: str, address: Address) -> UserError:
    chain = _chain(error)
    system = next((e for e in chain if isinstance(e, OSError) and e.errno is not None), None)
    number = system.errno if system is not None else None
    where = f"the Docker engine at {address}" + (f" ({address.origin})" if address.origin != "default" else "")
    if number in (errno.EACCES, errno.EPERM) and address.socket is not None:
        return UserError(
            "engine-permission",
            f"you may not use {where}",
            hint="Add yourself to the group docker ('sudo usermod -aG docker $USER', then log in again), or run as root.",
            exit_status=Exit.MISSING,
        )
    if number == errno.ENOSPC:
        return refused("no space left on device (on this machine, while sending)", doing)
    # urllib3 derives its NewConnectionError from a timeout, so a number, where there is one, goes first.
    timeouts = (TimeoutError, requests.exceptions.Timeout, urllib3.exceptions.TimeoutError)
    if number in (None, errno.ETIMEDOUT) and any(isinstance(e, timeouts) for e in chain):
        return UserError(
            "engine-timeout",
            f"{doing}: {where} did not answer in time",
            hint="Is it overloaded or hanging? 'docker info' asks it something simple.",
        )
    if number == errno.ENOENT and address.socket is not None:
        reason = f"there is no socket {address.socket}"
    elif number == errno.ECONNREFUSED:
        reason = "nobody listens there"
    else:
        reason = _brief(_last_words(chain))
    hint = f"Start that engine, or name another ({address.origin} names this one)."
    if address.origin == "default":
        hint = "'cspace engine install' starts one, or installs it first; DOCKER_HOST names one elsewhere."
    return UserError(
        "engine-unreachable", f"cannot reach {where}: {reason}", hint=hint, exit_status=Exit.MISSING,
        details={"doing": doing},
    )  # fmt: skip


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and everything it was made from; requests and urllib3 keep causes in their arguments as well."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        one = queue.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            queue += [one.__cause__, one.__context__, *one.args, getattr(one, "reason", None)]
    return found


def _last_words(chain: list[BaseException]) -> str:
    said = next((e for e in chain if isinstance(e, LinkFailed)), None)
    if said is not None:
        return str(said)
    spoken = [e for e in chain if isinstance(e, OSError) and e.args and isinstance(e.args[-1], str)]
    return str((spoken or chain)[-1].args[-1] if (spoken or chain)[-1].args else (spoken or chain)[-1])
