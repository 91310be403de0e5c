"""Public suffixes: names below which anybody can have a name of their own, such as ``com``, ``co.uk`` or ``github.io``."""

from __future__ import annotations

from functools import cache

from publicsuffixlist import PublicSuffixList

from netpolicy import patterns
from netpolicy.policy.problems import Refused


def refuse_public(pattern: str) -> None:
    """Refuse a wildcard that stands for names of people who have nothing to do with each other. Raises Refused."""
    name = patterns.suffix(pattern)
    if _list("xn--" in name).is_public(name):
        raise Refused(
            f"{name} is a public suffix: anybody can have a name below it; write *.yourname.{name}, or the exact names"
        )


@cache
def _list(encoded: bool) -> PublicSuffixList:
    """The list of publicsuffix.org as of the package's release; with its internationalised names in both spellings if `encoded`."""
    return PublicSuffixList(accept_encoded_idn=encoded)
