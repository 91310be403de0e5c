from __future__ import annotations

import re
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpolicy.errors import Exit, UserError
from sidecars import names


@pytest.mark.requirement("I2")
def test_unnamed_instances_are_planets_in_order_then_further_bodies() -> None:
    taken: set[str] = set()
    for planet in ("mercury", "venus", "earth", "mars", "jupiter", "saturn", "uranus", "neptune", "pluto"):
        assert names.first_free(taken) == planet
        taken.add(planet)


@pytest.mark.requirement("I2")
def test_a_name_that_came_free_is_used_again() -> None:
    assert names.first_free({"mercury", "earth"}) == "venus"


def test_there_is_always_another_name_and_every_one_is_valid_and_new() -> None:
    seen = list(islice(names.suggestions(), 500))
    assert len(set(seen)) == 500
    assert all(names.parse(name).text == name for name in seen)


@pytest.mark.requirement("I2")
def test_a_name_with_a_slash_is_a_branch() -> None:
    assert names.parse("fix/Login_form") == names.Name("fix-login-form", "fix/Login_form")
    assert names.parse("mercury") == names.Name("mercury", None)


@pytest.mark.parametrize("text", ["", "Mercury", "a b", "-a", "a-", "a_b", "ä", "x" * 41, "a.b", "/", "//", "a\n"])
def test_what_is_no_dns_label_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError) as caught:
        names.parse(text)
    assert caught.value.code == "bad-name"
    assert caught.value.exit_status == Exit.BAD_INPUT
    assert repr(text) in caught.value.message


def test_the_refusal_names_what_would_be_valid() -> None:
    with pytest.raises(UserError) as caught:
        names.parse("My Instance")
    assert "'my-instance'" in str(caught.value.hint)


@given(st.text(min_size=1, max_size=80))
def test_a_folder_name_becomes_a_project_name_or_a_clear_error(text: str) -> None:
    try:
        made = names.project(text)
    except UserError as error:
        assert error.code == "bad-name"
        return
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", made)
    assert len(made) <= names.LONGEST
    assert names.project(made) == made


def test_objects_are_named_for_people_and_interfaces_fit_the_kernel() -> None:
    assert names.object_name("shop", "mercury") == "cspace-shop-mercury"
    assert names.object_name("shop", None, "logs") == "cspace-shop-logs"
    assert names.object_name("shop", "mercury", "workspace") == "cspace-shop-mercury-workspace"
    assert len("csp-" + names.tag("x" * 40, "y" * 40)) <= 15
    assert names.tag("a-b", "c") != names.tag("a", "b-c")
