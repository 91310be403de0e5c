"""The state file holds what was saved last, whichever of the records changed in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netpolicy.attachment import Attachment
from netpolicy.gate.state import Record, StateStore
from netpolicy.ruleset import Ruleset


def record(name: str) -> Record:
    return Record(Attachment(name, f"test/{name}", f"csp-{name}", (), ()), Ruleset("first"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    made = StateStore(tmp_path / "state")
    yield made
    made.close()


def test_what_changed_and_what_did_not(store: StateStore) -> None:
    one, two = record("one"), record("two")
    store.save([one, two])
    other = replace(two, ruleset=Ruleset("second", "observe"))
    store.save([one, other])
    assert store.load().records == (one, other)
    store.save([other])
    assert store.load().records == (other,)
    store.save([one, two, other])  # an id is one attachment's: the last record counts
    assert store.load().records == (one, other)
    store.save([])
    assert store.load().records == ()


def test_an_equal_record_is_as_good_as_the_same(store: StateStore) -> None:
    store.save([record("one")])
    store.save([record("one")])
    assert store.load().records == (record("one"),)
