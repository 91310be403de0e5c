"""Several rulesets in one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from netpolicy.ruleset import MODES, HostRule, NameRule, RangeRule, Ruleset

T = TypeVar("T", NameRule, RangeRule, HostRule, str)


def merge(rulesets: Iterable[Ruleset], *, name: str) -> Ruleset:
    """All rules of at least one ruleset, each with the origin it has.

    What any allows is allowed, unless any denies it. The strictest wins of everything else: ``enforce`` over ``observe`` over
    ``off``, IPv6 only where all have it, and after another program's change a lock where any wants one.

    Args:
        rulesets: Those to merge; of equal rules the first one's counts.
        name: What the merged ruleset is called, e.g. ``team.json + project.json``.

    Raises:
        ValueError: there is none.
    """
    parts = tuple(rulesets)
    if not parts:
        raise ValueError("there is nothing to merge")
    ipv6 = all(part.ipv6 for part in parts)
    return Ruleset(
        policy=name,
        mode=min((part.mode for part in parts), key=MODES.index),
        names=_once(rule for part in parts for rule in part.names),
        ranges=_once(rule for part in parts for rule in part.ranges if ipv6 or rule.network.version == 4),
        host=_once(rule for part in parts for rule in part.host),
        denied_names=_once(rule for part in parts for rule in part.denied_names),
        denied_ranges=_once(rule for part in parts for rule in part.denied_ranges),
        ipv6=ipv6,
        on_drift="lock" if any(part.on_drift == "lock" for part in parts) else "repair",
        warnings=_once(warning for part in parts for warning in part.warnings),
    )


def _once(found: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(found))
