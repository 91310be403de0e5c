"""Provider lists when an instance is started: fetched where they are old, and never in the way."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cspace_mcp.host import HostService
from cspace_mcp.service import Spawn
from netpolicy.errors import UserError
from netpolicy.presets import copies, freshening
from netpolicy.presets.copies import Copy
from sidecars.progress import Step


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the default presets, and a user without any copy of a list."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(freshening.VARIABLE, raising=False)
    folder = tmp_path / "shop"
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", "-C", str(folder), *identity, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    return folder


def spawn(folder: Path, environ: Mapping[str, str]) -> list[str]:
    """The steps of an `up` that ends where it would need an engine."""
    said: list[Step] = []
    wanted = {**environ, "DOCKER_HOST": f"unix://{folder}/no-engine"}
    with pytest.raises(UserError, match="engine"):
        HostService(folder, wanted).spawn(Spawn(name="mercury"), said.append)
    return [step.message for step in said if step.phase == "presets"]


@pytest.mark.requirement("F5")
def test_what_cannot_be_fetched_is_said_and_stops_nothing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **_how: Any) -> None:
        raise UserError("fetch-failed", f"{name} is far away")

    environ = {"XDG_CACHE_HOME": str(checkout.parent / "cache")}
    monkeypatch.setattr(freshening, "refresh", unreachable)
    assert spawn(checkout, environ) == [
        "fetching the networks of github",
        "the networks of github stay as old as they are: github is far away",
    ]
    assert spawn(checkout, environ) == []


@pytest.mark.requirement("F5")
def test_what_was_fetched_is_what_the_policy_is_made_of(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = ("198.51.100.0/24",)

    def fetched(names: Iterable[str], _environ: Mapping[str, str], *, clock: Any) -> dict[str, str]:
        place = copies.place("github")
        assert list(names) == ["github"]
        assert place is not None
        copies.write(place, Copy("https://localhost/", clock.now(), dict.fromkeys(("web", "api", "git"), fresh)))
        return {}

    service = HostService(checkout, {"XDG_CACHE_HOME": str(checkout.parent / "cache")})
    assert service.firewall(None).warnings
    monkeypatch.setattr(freshening, "freshen", fetched)
    assert spawn(checkout, {"XDG_CACHE_HOME": str(checkout.parent / "cache")}) == ["fetching the networks of github"]
    after = service.firewall(None)
    assert not after.warnings
    assert service.check("198.51.100.7", None).allowed
    assert spawn(checkout, {"XDG_CACHE_HOME": str(checkout.parent / "cache")}) == []


def test_it_can_be_switched_off(checkout: Path) -> None:
    assert spawn(checkout, {"XDG_CACHE_HOME": str(checkout.parent / "cache"), "NETPOLICY_REFRESH": "off"}) == []
