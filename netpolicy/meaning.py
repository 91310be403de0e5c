"""What a ruleset says, in the one form that all rulesets which say the same have: what its `id` is the hash of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from netpolicy import spans
from netpolicy.lifted import lifted, may_lift
from netpolicy.ruleset import FORMAT, NameRule, Network, RangeGroup, Ruleset, end
from netpolicy.services import Service, elements, merged, subtract
from netpolicy.spans import Spans


def meaning(ruleset: Ruleset) -> dict[str, Any]:
    """The form, to be written as JSON with sorted keys."""
    return {
        "format": FORMAT,
        "mode": ruleset.mode,
        "names": [[name, _until_rows(rules)] for name, rules in sorted(ruleset.by_name.items())],
        "ranges": _runs(ruleset.groups),
        "lifted": _lifts(ruleset),
        "denied_names": [[name, _until_rows(rules)] for name, rules in sorted(ruleset.denied_by_name.items())],
        "denied_ranges": _runs(ruleset.denied_groups),
        "host": [_service(s) for s in merged(r.service for r in ruleset.host)],
        "ipv6": ruleset.ipv6,
        "on_drift": ruleset.on_drift,
    }


def _runs(groups: Iterable[RangeGroup]) -> list[Any]:
    """For each family, the longest runs of ports with the same addresses open at least until an end, each with the hash of these.

    Ends come latest first; one that opens nothing more than the later ones is left out.
    """
    known = tuple(groups)
    found: list[list[Any]] = []
    for piece in elements(s for group in known for s in group.services):
        for version in (4, 6):
            having = [g for g in known if g.version == version and any(s.contains(piece) for s in g.services)]
            found += [
                [version, until, piece.protocol, piece.first, piece.last, opened.digest]
                for until, opened in _growing((g.until, g.spans) for g in having)
            ]
    runs: list[list[Any]] = []
    for row in sorted(found):
        before = runs[-1] if runs else None
        if before is not None and [*before[:3], before[4] + 1, before[5]] == [*row[:4], row[5]]:
            before[4] = row[4]
        else:
            runs.append(row)
    return runs


def _growing(parts: Iterable[tuple[float | None, Spans]]) -> Iterator[tuple[float, Spans]]:
    """The addresses of one family that are open at least until each end, latest first, wherever that makes more."""
    ends: dict[float | None, list[Spans]] = {}
    for until, some in parts:
        ends.setdefault(until, []).append(some)
    opened: Spans | None = None
    for until in sorted(ends, key=end, reverse=True):
        more = spans.union(ends[until] if opened is None else [opened, *ends[until]])
        if more.pairs and more != opened:
            opened = more
            yield end(until), more


def _lifts(ruleset: Ruleset) -> list[Any]:
    """For each family and end, the hash of the addresses that names may have although they are not public ones."""
    if all(rule.services for rule in ruleset.ranges) and not any(may_lift(g.spans) for g in ruleset.groups):
        return []  # as it mostly is, and quicker to see than rule by rule
    ends: dict[tuple[int, float | None], list[Network]] = {}
    for rule in ruleset.ranges:
        ends.setdefault((rule.network.version, rule.until), []).append(rule.network)
    parts = {key: lifted(networks, key[0]) for key, networks in ends.items()}
    return [
        [version, until, some.digest]
        for version in (4, 6)
        for until, some in _growing((key[1], part) for key, part in parts.items() if key[0] == version)
    ]


def _until_rows(rules: Iterable[NameRule]) -> list[Any]:
    """The services of one pattern by their end, latest first, without those that last longer."""
    ends: dict[float | None, list[Service]] = {}
    for rule in rules:
        ends.setdefault(rule.until, []).extend(rule.services)
    known: list[Service] = []
    rows: list[Any] = []
    for until in sorted(ends, key=end, reverse=True):
        if new := subtract(ends[until], known):
            rows.append([end(until), [_service(s) for s in new]])
            known += new
    return rows


def _service(service: Service) -> list[int]:
    return [service.protocol, service.first, service.last]
