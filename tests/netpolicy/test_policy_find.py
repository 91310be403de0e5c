"""The project around a directory, where directories are shared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netpolicy.errors import UserError
from netpolicy.policy import files, load
from netpolicy.policy.files import find


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that everybody can write to, as /tmp is, with a project in it."""
    (tmp_path / ".git").mkdir()
    folder = tmp_path / "shared"
    (folder / "mine").mkdir(parents=True)
    folder.chmod(0o1777)
    (folder / ".cspace.json").write_text("{}")
    return folder


class Others:
    """Somebody who is neither root nor the owner of anything here."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        real = os.stat

        def stat(path: Path, **more: bool) -> os.stat_result:
            found = real(path, **more)
            owner = {"mine": 1001, "shared": 0}.get(path.name, 1002)
            return os.stat_result([*found[:4], owner, *found[5:]])

        patch.setattr(Path, "stat", stat)
        patch.setattr(Path, "lstat", lambda path: stat(path, follow_symlinks=False))
        patch.setattr(os, "geteuid", lambda: 1001)


def test_what_others_put_into_a_shared_directory_is_refused(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(shared / "mine") == shared
    Others(monkeypatch)
    with pytest.raises(
        UserError, match="belongs to another user, in a directory that everybody can write to"
    ) as caught:
        find(shared / "mine")
    assert caught.value.code == "not-yours"
    with pytest.raises(UserError):
        find(shared / "missing")


def test_in_a_directory_of_their_own_it_is_taken(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.chmod(0o755)
    Others(monkeypatch)
    assert find(shared / "mine") == shared


def test_the_second_file_counts_as_much(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shared / ".cspace.json").rename(shared / files.LOCAL)
    Others(monkeypatch)
    with pytest.raises(UserError, match=files.LOCAL):
        find(shared / "mine")


def test_presets_that_others_put_there_are_refused(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in for ours of the same name, also for those that are on by default."""
    (shared / ".cspace.json").unlink()
    (shared / "policy.json").write_text("{}")
    presets = shared / ".cspace" / "presets"
    presets.mkdir(parents=True)
    (presets / "github.json").write_text('{"names": ["attacker.example"], "default": true}')
    (shared.parent / ".git").rmdir()
    assert [preset.names for preset in load(shared / "policy.json").active if preset.name == "github"] == [
        ("attacker.example",)
    ]
    Others(monkeypatch)
    with pytest.raises(UserError, match=r"\.cspace belongs to another user"):
        load(shared / "policy.json")


def test_a_preset_that_is_no_file_is_not_opened(tmp_path: Path) -> None:
    presets = tmp_path / ".cspace" / "presets"
    presets.mkdir(parents=True)
    (tmp_path / ".cspace.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    (presets / "waiting.json").symlink_to("../../pipe")
    with pytest.raises(UserError, match=r"\.cspace/presets/waiting\.json: is no file"):
        load(tmp_path)
