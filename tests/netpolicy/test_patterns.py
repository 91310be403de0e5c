"""Names and wildcards, held against a list of all names."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpolicy import patterns

LABELS = ("a", "b", "ab")
#: Every name of up to four of these labels.
NAMES = tuple(".".join(labels) for length in range(1, 5) for labels in product(LABELS, repeat=length))
ALL = tuple(name for name in NAMES if name.count(".") < 2) + tuple(f"*.{name}" for name in NAMES if name.count(".") < 2)


def meant(pattern: str) -> set[str]:
    """Label by label, without looking at the spelling of the whole."""
    labels = pattern.split(".")
    if labels[0] != "*":
        return {name for name in NAMES if name.split(".") == labels}
    below = labels[1:]
    return {n for n in NAMES if n.split(".")[-len(below) :] == below and n.count(".") >= len(below)}


@pytest.mark.parametrize("pattern", ALL)
def test_a_pattern_covers_the_names_that_are_meant(pattern: str) -> None:
    assert {name for name in NAMES if patterns.covers(pattern, name)} == meant(pattern)
    assert patterns.is_wildcard(pattern) == (len(meant(pattern)) > 1)


@given(st.sampled_from(ALL), st.sampled_from(ALL))
def test_within_is_inclusion(inner: str, outer: str) -> None:
    assert patterns.within(inner, outer) == (meant(inner) <= meant(outer))


@given(st.sampled_from(NAMES))
def test_matching_finds_every_pattern_for_a_name_nearest_first(name: str) -> None:
    found = list(patterns.matching(name))
    assert {pattern for pattern in ALL if name in meant(pattern)} == set(found) & set(ALL)
    assert found[0] == name
    assert [len(pattern) for pattern in found[1:]] == sorted((len(p) for p in found[1:]), reverse=True)


@given(st.sampled_from([pattern for pattern in ALL if pattern.startswith("*.")]))
def test_matching_finds_every_pattern_for_a_whole_wildcard(pattern: str) -> None:
    found = list(patterns.matching(pattern))
    assert {other for other in ALL if meant(pattern) <= meant(other)} == set(found) & set(ALL)
    assert len(set(found)) == len(found)


def test_the_apex_is_not_below_itself() -> None:
    assert not patterns.covers("*.example.com", "example.com")
    assert not patterns.covers("*.example.com", "badexample.com")
    assert patterns.covers("*.example.com", "a.b.example.com")
    assert patterns.suffix("*.example.com") == "example.com"
