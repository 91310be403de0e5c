"""From a JSON document to a `Policy`, or to one error with everything that is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netpolicy.flow import Origin
from netpolicy.policy import rules, upstream
from netpolicy.policy.available import available
from netpolicy.policy.model import Dns, Policy, Ssh, Verify
from netpolicy.policy.problems import Problem, bad_policy, nearest
from netpolicy.policy.reading import Owner, Reader
from netpolicy.policy.verifying import probe_target
from netpolicy.presets import Preset
from netpolicy.ruleset import MODES, ON_DRIFT, Mode

KEYS = (
    "mode",
    "enabled",
    "domains",
    "allow",
    "deny",
    "presets",
    "ssh",
    "host_access",
    "ipv6",
    "on_drift",
    "policy_file",
    "verify",
    "dns",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a policy object stands."""

    source: str
    """The file, as the user knows it."""
    prefix: str = ""
    """The key that holds the object in that file; empty where the file is the object."""
    owner: Owner | None = None
    """Which file says a key, where several are merged; None where `source` says all of them."""
    base: Path | None = None
    """The project's directory: `policy_file` is relative to it, and ``.cspace/presets`` is looked for in it."""

    def owner_of(self, key: str) -> str:
        """The file that says a key."""
        return self.source if self.owner is None else self.owner(key)


def parse(
    document: Mapping[str, Any],
    *,
    source: str,
    prefix: str = "firewall",
    base: Path | None = None,
    environ: Mapping[str, str] | None = None,
    owner: Owner | None = None,
) -> Policy:
    """Check a policy object.

    Args:
        document: The object, as JSON has it (the `firewall` object of a ``.cspace.json``).
        source: The file's name, as the user knows it, for messages and origins.
        prefix: The key that holds the object in that file; empty for a file that is the object.
        base: The project's directory: `policy_file` is relative to it, and ``.cspace/presets`` is looked for in it.
        environ: Where ``CSPACE_FIREWALL_DOMAINS`` is looked up; None for nowhere.
        owner: Which file says a key such as ``firewall.domains[2]``, for a document merged from several.

    Raises:
        UserError: ``bad-policy``, exit status 2, with every problem in ``details["problems"]`` as {file, key, value, message}.
    """
    problems: list[Problem] = []
    policy = read(document, Place(source, prefix, owner, base), environ, problems)
    if problems:
        raise bad_policy(problems)
    return policy


def read(document: Any, place: Place, environ: Mapping[str, str] | None, problems: list[Problem]) -> Policy:
    """The same, for callers that gather problems of their own; beside problems, what is returned is of no use."""
    reader = Reader(document, key=place.prefix, owner=place.owner_of, problems=problems)
    reader.known(KEYS)
    added = tuple(rules.from_environment(environ or {}, problems))
    wanted, active = _presets(reader, place.base)
    policy = Policy(
        source=place.source,
        prefix=place.prefix,
        mode=_mode(reader),
        domains=(*rules.domains(reader), *added),
        allow=tuple(rules.allow(reader)),
        deny=tuple(rules.deny(reader)),
        presets=wanted,
        active=active,
        ssh=_ssh(reader),
        ssh_origin=Origin(place.owner_of(reader.path("ssh")), reader.path("ssh"), '"any"'),
        host_access=tuple(rules.host_access(reader)),
        ipv6=reader.boolean("ipv6", True),
        on_drift=reader.choice("on_drift", ON_DRIFT),
        verify=_verify(reader),
        dns=Dns(reader.child("dns").texts("upstream", '["192.0.2.53", "192.0.2.54:5353"]', upstream.canonical)),
    )
    reader.child("dns").known(("upstream",))
    replacement = reader.text("policy_file")
    if replacement is None:
        return policy
    # Late, because a replacement is read like any other file, by way of this function.
    from netpolicy.policy.loading import replaced

    return replaced(replacement, place, reader.path("policy_file"), environ, problems)


def _presets(reader: Reader, base: Path | None) -> tuple[tuple[tuple[str, bool], ...], tuple[Preset, ...]]:
    child = reader.child("presets")
    found = available(base, reader.problems)
    wanted: dict[str, bool] = {}
    for name in child.document:
        if name in found:
            wanted[name] = child.boolean(name, found[name].default)
        else:
            said = (
                f"{name} is a key of the policy (in TOML it stands above [presets])"
                if name in KEYS
                else nearest(name, found)
            )
            child.refuse(child.path(name), None, f"there is no such preset; {said}")
    active = tuple(preset for name, preset in sorted(found.items()) if wanted.get(name, preset.default))
    return tuple(sorted(wanted.items())), active


def _mode(reader: Reader) -> Mode:
    """`mode`, or the older word for two of its values."""
    mode, enabled = reader.choice("mode", MODES), reader.boolean("enabled", True)
    if "mode" not in reader.document:
        return "enforce" if enabled else "off"
    if "enabled" in reader.document and reader.document["mode"] == mode and enabled == (mode == "off"):
        message = f"contradicts `enabled`, which is {json.dumps(enabled)}; leave one of them out"
        reader.refuse(reader.path("mode"), mode, message)
    return mode


def _ssh(reader: Reader) -> Ssh:
    value = reader.document.get("ssh", True)
    if isinstance(value, bool) or value == "any":
        return True if value is True else "any" if value else False
    message = 'must be true (bare targets get tcp/22), false, or "any" (tcp/22 to every address)'
    reader.refuse(reader.path("ssh"), value, message)
    return True


def _verify(reader: Reader) -> Verify:
    child = reader.child("verify")
    child.known(("blocked", "allowed"))
    example = '["example.com", "https://example.org/path"]'
    default = Verify()
    blocked, allowed = (child.texts(name, example, probe_target) for name in ("blocked", "allowed"))
    return Verify(
        blocked if "blocked" in child.document else default.blocked,
        allowed if "allowed" in child.document else default.allowed,
    )
