"""From a JSON document to a `Policy`, or to one error with everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netpolicy.flow import PORTED, Origin
from netpolicy.policy import ports, target, upstream
from netpolicy.policy.available import available
from netpolicy.policy.model import Dns, HostAccess, Policy, Rule, Ssh, Verify
from netpolicy.policy.problems import Problem, Refused, bad_policy, nearest
from netpolicy.policy.reading import Reader
from netpolicy.policy.target import Target

#: The variable that adds to `domains`, separated by spaces.
VARIABLE = "CSPACE_FIREWALL_DOMAINS"

KEYS = ("enabled", "domains", "allow", "presets", "ssh", "host_access", "policy_file", "verify", "dns")
_RULE_KEYS = ("host", "ports", "reason")
_RULE_LATER = {"expires": "rules that expire are not supported yet"}


def parse(
    document: Mapping[str, Any],
    *,
    source: str,
    prefix: str = "firewall",
    base: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Policy:
    """Check a policy object.

    Args:
        document: The object, as JSON has it (the `firewall` object of a ``.cspace.json``).
        source: The file's name, as the user knows it, for messages and origins.
        prefix: The key that holds the object in that file; empty for a file that is the object.
        base: The project's directory: `policy_file` is relative to it, and ``.cspace/presets`` is looked for in it.
        environ: Where ``CSPACE_FIREWALL_DOMAINS`` is looked up; None for nowhere.

    Raises:
        UserError: ``bad-policy``, exit status 2, with every problem in ``details["problems"]`` as {file, key, value, message}.
    """
    problems: list[Problem] = []
    policy = read(document, source=source, prefix=prefix, base=base, environ=environ, problems=problems)
    if problems:
        raise bad_policy(problems)
    return policy


def read(
    document: Any,
    *,
    source: str,
    prefix: str,
    base: Path | None,
    environ: Mapping[str, str] | None,
    problems: list[Problem],
) -> Policy:
    """The same, for a caller that gathers problems of its own; what is returned beside problems is of no use."""
    if not isinstance(document, Mapping):
        problems.append(Problem(source, prefix, document, 'must be an object, such as {"domains": ["example.com"]}'))
        document = {}
    reader = Reader(document, file=source, key=prefix, problems=problems)
    reader.known(KEYS)
    replacement = reader.text("policy_file")
    if replacement is not None:
        from netpolicy.policy.loading import replaced

        return replaced(replacement, reader, base=base, environ=environ)
    wanted, active = _presets(reader, base)
    return Policy(
        source=source,
        enabled=reader.boolean("enabled", True),
        domains=(*_rules(reader, "domains"), *_from_environment(environ or {}, problems)),
        allow=tuple(_rules(reader, "allow")),
        presets=wanted,
        active=active,
        ssh=_ssh(reader),
        host_access=tuple(_host_access(reader)),
        verify=_verify(reader),
        dns=_dns(reader),
    )


def _rules(reader: Reader, name: str) -> list[Rule]:
    rules = []
    for key, entry in reader.entries(name, '["example.com", "example.org:443"]'):
        rule = _rule(reader, key, entry, objects=name == "allow")
        if rule is not None:
            rules.append(rule)
    return rules


def _rule(reader: Reader, key: str, entry: Any, *, objects: bool) -> Rule | None:
    if isinstance(entry, Mapping) and objects:
        return _object(Reader(entry, file=reader.file, key=key, problems=reader.problems), key)
    if not isinstance(entry, str):
        form = 'a text such as "example.com:443"'
        if objects:
            form += ', or {"host": "example.com", "ports": [443], "reason": "..."}'
        elif isinstance(entry, Mapping):
            form += "; objects belong into `allow`"
        reader.refuse(key, entry, f"must be {form}")
        return None
    found = reader.accept(key, entry, target.parse)
    return None if found is None else Rule(found, None, Origin(reader.file, key, entry))


def _object(reader: Reader, key: str) -> Rule | None:
    before = len(reader.problems)
    reader.known(_RULE_KEYS, _RULE_LATER)
    reason = reader.text("reason")
    host = reader.text("host")
    if host is None:
        if "host" not in reader.document:
            reader.refuse(key, None, 'a rule needs a host: {"host": "example.com"}')
        return None
    services = [
        service
        for place, entry in reader.entries("ports", '[443, "8000-8010/udp"]')
        for service in reader.accept(place, entry, port_entry) or ()
    ]
    if reader.document.get("ports") in ([], ()):
        reader.refuse(reader.path("ports"), [], "is empty; leave it out for the default services, or name ports")
    if "ports" in reader.document:
        alone = reader.accept(reader.path("host"), host, target.parse_host)
        found = None if alone is None else target.of(alone, tuple(services))
    else:
        found = reader.accept(reader.path("host"), host, target.parse)
    if found is None or len(reader.problems) > before:
        return None
    return Rule(found, reason, Origin(reader.file, key, str(found), reason))


def port_entry(entry: Any) -> tuple[Any, ...]:
    """An entry of `ports`: a number, or a text that `ports.parse` reads. Raises Refused."""
    if isinstance(entry, bool) or not isinstance(entry, int | str):
        raise Refused('must be a port such as 443, or a text such as "8000-8010/udp", "*" or "icmp"')
    return ports.parse(str(entry))


def _from_environment(environ: Mapping[str, str], problems: list[Problem]) -> list[Rule]:
    reader = Reader({}, file="environment", key="", problems=problems)
    rules = []
    for word in environ.get(VARIABLE, "").split():
        found = reader.accept(VARIABLE, word, target.parse)
        if found is not None:
            rules.append(Rule(found, None, Origin(f"env:{VARIABLE}", VARIABLE, word)))
    return rules


def _presets(reader: Reader, base: Path | None) -> tuple[tuple[tuple[str, bool], ...], tuple[Any, ...]]:
    child = reader.child("presets")
    found = available(base, reader.problems)
    wanted: dict[str, bool] = {}
    for name in child.document:
        if name not in found:
            child.refuse(child.path(name), None, f"there is no such preset; {nearest(name, found)}")
        else:
            wanted[name] = child.boolean(name, True)
    active = tuple(preset for name, preset in sorted(found.items()) if wanted.get(name, preset.default))
    return tuple(sorted(wanted.items())), active


def _ssh(reader: Reader) -> Ssh:
    value = reader.document.get("ssh", True)
    if isinstance(value, bool):
        return value
    if value == "any":
        return "any"
    message = 'must be true (bare targets get tcp/22), false, or "any" (tcp/22 to every address)'
    reader.refuse(reader.path("ssh"), value, message)
    return True


def _host_access(reader: Reader) -> list[HostAccess]:
    found = []
    for key, entry in reader.entries("host_access", '[5432, "8000-8010/udp"]'):
        for service in reader.accept(key, entry, port_entry) or ():
            if service.protocol not in PORTED:
                reader.refuse(key, entry, "only ports of the host can be opened, such as 5432 or 53/udp")
                break
            found.append(HostAccess(service, Origin(reader.file, key, str(entry))))
    return found


def _verify(reader: Reader) -> Verify:
    child = reader.child("verify")
    child.known(("blocked", "allowed"))
    default = Verify()

    def targets(name: str, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        if name not in child.document:
            return otherwise
        pairs = child.entries(name, '["example.com", "https://example.org/path"]')
        found = [child.accept(key, entry, _probe_target) for key, entry in pairs]
        return tuple(text for text in found if text is not None)

    return Verify(targets("blocked", default.blocked), targets("allowed", default.allowed))


def _probe_target(entry: Any) -> str:
    from netpolicy.probe.verification import flow_of

    if not isinstance(entry, str):
        raise Refused('must be a text such as "example.com:443" or "https://example.com/path"')
    try:
        flow_of(entry)
    except ValueError as error:
        raise Refused(str(error)) from error
    return entry


def _dns(reader: Reader) -> Dns:
    child = reader.child("dns")
    child.known(("upstream",))
    pairs = child.entries("upstream", '["192.0.2.53", "192.0.2.54:5353"]')
    found = [child.accept(key, entry, upstream.canonical) for key, entry in pairs]
    return Dns(tuple(text for text in found if text is not None))


__all__ = ["KEYS", "VARIABLE", "Target", "parse", "read"]
