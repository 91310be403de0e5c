"""Public suffixes: names below which anybody can have a name of their own, such as ``com``, ``co.uk`` or ``github.io``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from publicsuffixlist import PSLFILE, PublicSuffixList

from netpolicy import patterns
from netpolicy.policy.problems import Refused


def refuse_public(pattern: str) -> None:
    """Refuse a wildcard that stands for names of people who have nothing to do with each other. Raises Refused."""
    name = patterns.suffix(pattern)
    if _list("xn--" in name).is_public(name):
        raise Refused(
            f"{name} is a public suffix: anybody can have a name below it; write *.yourname.{name}, or the exact names"
        )
    inner = _below().get(name)
    if inner is not None:
        raise Refused(
            f"below {name} is the public suffix {inner}, where anybody can have a name; write a wildcard over less, or the exact names"
        )


@cache
def _below() -> dict[str, str]:
    """The names that have public suffixes below them, each with the shortest of these."""
    found: dict[str, str] = {}
    for line in Path(PSLFILE).read_text(encoding="utf-8").splitlines():
        rule = line.strip()
        if not rule or rule.startswith(("//", "!")):
            continue
        rest = rule
        while "." in rest:
            rest = rest.partition(".")[2]
            found[rest] = min(rule, found.get(rest, rule), key=lambda known: (len(known), known))
    return found


@cache
def _list(encoded: bool) -> PublicSuffixList:
    """The list of publicsuffix.org as of the package's release; with its internationalised names in both spellings if `encoded`."""
    return PublicSuffixList(accept_encoded_idn=encoded)
