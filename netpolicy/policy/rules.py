"""The entries of `domains`, `allow` and `deny`, of `host_access`, and of the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from netpolicy.flow import PORTED, Origin
from netpolicy.policy import ends, ports, target
from netpolicy.policy.model import ROLES, HostAccess, Role, Rule
from netpolicy.policy.problems import Problem, Refused
from netpolicy.policy.reading import Reader
from netpolicy.services import Service

#: The variable that adds to `domains`, separated by spaces.
VARIABLE = "CSPACE_FIREWALL_DOMAINS"

_KEYS = ("host", "ports", "reason", "expires", "roles")
_DENY_KEYS = ("host", "ports", "reason", "roles")
_NO_END = {"expires": "a denial has no end, for its end would open something; take it out when it is no longer needed"}
_TEXT = 'a text such as "example.com" or "example.com:443"'
_OBJECT = '{"host": "example.com", "ports": [443], "reason": "..."}'


def domains(reader: Reader) -> Iterator[Rule]:
    """The rules under `domains`: texts only."""
    for key, entry in reader.entries("domains", '["example.com", "example.org:443"]'):
        if isinstance(entry, str):
            yield from _text(reader, key, entry)
        else:
            more = "; objects belong in `allow`" if isinstance(entry, Mapping) else ""
            reader.refuse(key, entry, f"must be {_TEXT}{more}")


def allow(reader: Reader) -> Iterator[Rule]:
    """The rules under `allow`: texts and objects."""
    return _mixed(reader, "allow", deny=False)


def deny(reader: Reader) -> Iterator[Rule]:
    """The rules under `deny`: texts and objects, too."""
    return _mixed(reader, "deny", deny=True)


def _mixed(reader: Reader, name: str, *, deny: bool) -> Iterator[Rule]:
    for key, entry in reader.entries(name, f'["example.org:443", {_OBJECT}]'):
        if isinstance(entry, str):
            yield from _text(reader, key, entry, deny=deny)
        elif isinstance(entry, Mapping):
            yield from _object(reader.at(key, entry), deny=deny)
        else:
            reader.refuse(key, entry, f"must be {_TEXT}, or {_OBJECT}")


def from_environment(environ: Mapping[str, str], problems: list[Problem]) -> Iterator[Rule]:
    """The targets in ``CSPACE_FIREWALL_DOMAINS``."""
    reader = Reader({}, key="", owner=lambda _key: "environment", problems=problems)
    for word in environ.get(VARIABLE, "").split():
        found = reader.accept(VARIABLE, word, target.parse)
        if found is not None:
            yield Rule(found, None, Origin(f"env:{VARIABLE}", VARIABLE, word))


def host_access(reader: Reader) -> Iterator[HostAccess]:
    """The ports of the host under `host_access`."""
    for key, entry in reader.entries("host_access", '[5432, "8000-8010/udp"]'):
        for service in reader.accept(key, entry, _host_ports) or ():
            yield HostAccess(service, Origin(reader.owner(key), key, str(entry)))


def _text(reader: Reader, key: str, entry: str, *, deny: bool = False) -> Iterator[Rule]:
    found = reader.accept(key, entry, lambda text: target.parse(text, deny=deny))
    if found is not None:
        yield Rule(found, None, Origin(reader.owner(key), key, entry))


def _object(reader: Reader, *, deny: bool) -> Iterator[Rule]:
    before = len(reader.problems)
    reader.known(_DENY_KEYS if deny else _KEYS, _NO_END)
    reason = reader.remark("reason")
    host = reader.text("host")
    if "host" not in reader.document:
        reader.refuse(reader.key, None, f"a rule needs a host, such as {_OBJECT}")
    found = (
        None if host is None else reader.accept(reader.path("host"), host, lambda text: target.parse(text, deny=deny))
    )
    if "ports" in reader.document:
        services = tuple(_ports(reader))
        if found is not None and found.services:
            reader.refuse(
                reader.path("host"), host, "has ports already; write the host alone, and its ports under `ports`"
            )
        elif found is not None and services:
            found = reader.accept(
                reader.path("ports"), reader.document["ports"], lambda _: target.of(found.host, services, deny=deny)
            )
    until = None if deny or "expires" not in reader.document else _end(reader)
    roles = _roles(reader)
    if found is not None and len(reader.problems) == before:
        yield Rule(found, reason, Origin(reader.owner(reader.key), reader.key, str(found), reason), until, roles)


def _end(reader: Reader) -> float | None:
    return reader.accept(reader.path("expires"), reader.document["expires"], ends.parse)


def _roles(reader: Reader) -> tuple[Role, ...]:
    """The roles in one order; none where the rule is for all of them."""
    wanted = {entry for _key, entry in reader.entries("roles", '["browser"]') if _is_role(reader, _key, entry)}
    if reader.document.get("roles") in ([], ()):
        reader.refuse(reader.path("roles"), [], "is empty; leave it out for all roles, or name some")
    found = tuple(role for role in ROLES if role in wanted)
    return () if found == ROLES else found


def _is_role(reader: Reader, key: str, entry: Any) -> bool:
    if entry in ROLES:
        return True
    reader.refuse(key, entry, f"must be one of {', '.join(ROLES)}")
    return False


def _ports(reader: Reader) -> Iterator[Service]:
    empty = True
    for key, entry in reader.entries("ports", '[443, "8000-8010/udp"]'):
        empty = False
        yield from reader.accept(key, entry, _port) or ()
    if empty and isinstance(reader.document["ports"], list | tuple):
        reader.refuse(reader.path("ports"), [], "is empty; leave it out for the default ports, or name some")


def _port(entry: Any) -> tuple[Service, ...]:
    if isinstance(entry, bool) or not isinstance(entry, int | str):
        raise Refused('must be a port such as 443, or a text such as "8000-8010/udp", "*" or "icmp"')
    if isinstance(entry, int) and not 1 <= entry <= ports.LAST:
        raise Refused(ports.no_such(entry))
    return ports.parse(str(entry))


def _host_ports(entry: Any) -> tuple[Service, ...]:
    found = _port(entry)
    if any(service.protocol not in PORTED for service in found):
        raise Refused("only ports of the host can be opened, such as 5432 or 8125/udp")
    return found
