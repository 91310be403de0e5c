"""The entries of `domains` and `allow`, of `host_access`, and of the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from netpolicy.flow import PORTED, Origin
from netpolicy.policy import ports, target
from netpolicy.policy.model import HostAccess, Rule
from netpolicy.policy.problems import Problem, Refused
from netpolicy.policy.reading import Reader
from netpolicy.services import Service

#: The variable that adds to `domains`, separated by spaces.
VARIABLE = "CSPACE_FIREWALL_DOMAINS"

_KEYS = ("host", "ports", "reason")
_LATER = {"expires": "rules that expire are not supported yet"}
_TEXT = 'a text such as "example.com" or "example.com:443"'
_OBJECT = '{"host": "example.com", "ports": [443], "reason": "..."}'


def domains(reader: Reader) -> Iterator[Rule]:
    """The rules under `domains`: texts only."""
    for key, entry in reader.entries("domains", '["example.com", "example.org:443"]'):
        if isinstance(entry, str):
            yield from _text(reader, key, entry)
        else:
            more = "; objects belong into `allow`" if isinstance(entry, Mapping) else ""
            reader.refuse(key, entry, f"must be {_TEXT}{more}")


def allow(reader: Reader) -> Iterator[Rule]:
    """The rules under `allow`: texts and objects."""
    for key, entry in reader.entries("allow", f'["example.org:443", {_OBJECT}]'):
        if isinstance(entry, str):
            yield from _text(reader, key, entry)
        elif isinstance(entry, Mapping):
            yield from _object(reader.at(key, entry))
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


def _text(reader: Reader, key: str, entry: str) -> Iterator[Rule]:
    found = reader.accept(key, entry, target.parse)
    if found is not None:
        yield Rule(found, None, Origin(reader.owner(key), key, entry))


def _object(reader: Reader) -> Iterator[Rule]:
    before = len(reader.problems)
    reader.known(_KEYS, _LATER)
    reason = reader.text("reason")
    host = reader.text("host")
    if "host" not in reader.document:
        reader.refuse(reader.key, None, f"a rule needs a host, such as {_OBJECT}")
    found = None if host is None else reader.accept(reader.path("host"), host, target.parse)
    if "ports" in reader.document:
        services = tuple(_ports(reader))
        if found is not None and found.services:
            reader.refuse(
                reader.path("host"), host, "has ports already; write the host alone, and its ports under `ports`"
            )
        elif found is not None and services:
            found = reader.accept(
                reader.path("ports"), reader.document["ports"], lambda _: target.of(found.host, services)
            )
    if found is not None and len(reader.problems) == before:
        yield Rule(found, reason, Origin(reader.owner(reader.key), reader.key, str(found), reason))


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
