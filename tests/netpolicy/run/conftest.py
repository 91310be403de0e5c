"""Fixtures of the tests of `netpolicy run`."""

from __future__ import annotations

import pytest
from running import FORMS, Form, Runner

from netpolicy.lab import Lab, Site


@pytest.fixture(params=FORMS, ids=str)
def form(request: pytest.FixtureRequest) -> Form:
    """Every form; use it where the answer could differ."""
    assert isinstance(request.param, Form)
    return request.param


@pytest.fixture
def runner(lab: Lab) -> Runner:
    """As root, over the host's network."""
    return Runner(lab)


@pytest.fixture
def allowed(lab: Lab) -> Site:
    """A name for a policy's domains."""
    return lab.site("allowed.example")
