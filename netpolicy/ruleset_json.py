"""A ruleset as canonical JSON, in which it crosses process borders and is remembered. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, TypeVar

from netpolicy.flow import Origin
from netpolicy.ruleset import FORMAT, MODES, ON_DRIFT, HostRule, NameRule, RangeRule, Ruleset
from netpolicy.services import Service

Rule = TypeVar("Rule", NameRule, RangeRule)


def written(ruleset: Ruleset) -> dict[str, Any]:
    """The JSON document that `read` reads back as an equal object."""
    return {
        "format": FORMAT,
        "policy": ruleset.policy,
        "mode": ruleset.mode,
        "names": [_name_row(r) for r in ruleset.names],
        "ranges": [_range_row(r) for r in ruleset.ranges],
        "denied_names": [_name_row(r) for r in ruleset.denied_names],
        "denied_ranges": [_range_row(r) for r in ruleset.denied_ranges],
        "ipv6": ruleset.ipv6,
        "on_drift": ruleset.on_drift,
        "host": [[_service(r.service), _origin(r.origin)] for r in ruleset.host],
        "warnings": list(ruleset.warnings),
    }


def read(document: Mapping[str, Any]) -> Ruleset:
    """Read what `written` wrote.

    Raises:
        ValueError: the document is of another format version or malformed.
    """
    try:
        return _read(document)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"this is no ruleset: {type(error).__name__}: {error}") from error


def _read(document: Mapping[str, Any]) -> Ruleset:
    if document.get("format") != FORMAT:
        raise ValueError(f"ruleset format {document.get('format')!r} is not {FORMAT}")
    mode = document["mode"]
    if mode not in MODES:
        raise ValueError(f"ruleset mode {mode!r} is none of {', '.join(MODES)}")
    if document["on_drift"] not in ON_DRIFT:
        raise ValueError(f"on_drift {document['on_drift']!r} is none of {', '.join(ON_DRIFT)}")
    if not isinstance(document["ipv6"], bool):
        raise TypeError(f"ipv6 {document['ipv6']!r} is neither true nor false")
    return Ruleset(
        policy=_text(document["policy"]),
        mode=mode,
        names=tuple(_name_rule(row) for row in document["names"]),
        ranges=tuple(_range_rule(row) for row in document["ranges"]),
        denied_names=tuple(_endless(_name_rule(row)) for row in document["denied_names"]),
        denied_ranges=tuple(_endless(_range_rule(row)) for row in document["denied_ranges"]),
        ipv6=document["ipv6"],
        on_drift=document["on_drift"],
        host=tuple(HostRule(_services([s])[0], Origin(*o)) for s, o in document["host"]),
        warnings=tuple(_text(w) for w in document.get("warnings", ())),
    )


def _name_row(rule: NameRule) -> list[Any]:
    return [rule.name, [_service(s) for s in rule.services], _origin(rule.origin), rule.until]


def _name_rule(row: list[Any]) -> NameRule:
    name, services, origin, until = row
    return NameRule(_text(name), _services(services), Origin(*origin), _moment(until))


def _range_row(rule: RangeRule) -> list[Any]:
    return [str(rule.network), [_service(s) for s in rule.services], _origin(rule.origin), rule.until]


def _range_rule(row: list[Any]) -> RangeRule:
    network, services, origin, until = row
    return RangeRule(ip_network(_text(network)), _services(services), Origin(*origin), _moment(until))


def _endless(denial: Rule) -> Rule:
    if denial.until is not None:
        raise ValueError(f"a denial must not end, as that of {denial.origin} does")
    return denial


def _moment(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise TypeError(f"{value!r} is not a time in seconds")


def _service(service: Service) -> list[int]:
    return [service.protocol, service.first, service.last]


def _services(rows: list[list[int]]) -> tuple[Service, ...]:
    services = tuple(Service(*row) for row in rows)
    for service in services:
        numbers = (service.protocol, service.first, service.last)
        if any(type(n) is not int for n in numbers) or not (
            0 <= service.protocol <= 255 and 0 <= service.first <= service.last <= 65535
        ):
            raise ValueError(f"{numbers} is no service")
    return services


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _origin(origin: Origin) -> list[str | None]:
    return [origin.source, origin.key, origin.text, origin.reason]
