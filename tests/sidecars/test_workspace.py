"""The repository's way in and out, with plain folders instead of containers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from netpolicy.errors import Exit, UserError
from sidecars.project import Project
from sidecars.workspace import Cloned, Ended, Source, Unsaved, bundled, clone, inspect, unsaved
from sidecars.workspace.clone import exists
from sidecars.workspace.source import without_credentials
from sidecars.workspace.unsaved import kept

URL = "https://example.com/team/shop.git"


class Folder:
    """A `Box` that is a folder of this machine."""

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.sent = 0

    def run(self, argv: Sequence[str], stdin: Iterable[bytes] = ()) -> Ended:
        data = b"".join(stdin)
        self.sent += len(data)
        env = {**os.environ, "PATH": f"{self.fail}:{os.environ['PATH']}" if self.fail else os.environ["PATH"]}
        done = subprocess.run(list(argv), input=data, capture_output=True, check=False, env=env)
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person with a configuration of their own that must not get in the way."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\n name = Kim Doe\n email = kim@example.com\n[init]\n defaultBranch = main\n"
        "[core]\n excludesFile = ~/ignored\n hooksPath = /nonexistent\n[commit]\n gpgSign = false\n"
        '[url "ssh://git@rewritten.example/"]\n insteadOf = https://example.com/\n[color]\n ui = always\n'
    )
    (home / "ignored").write_text("*.swp\n")
    for key in [key for key in os.environ if key.startswith("GIT_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder: Path, name: str, text: str = "text\n") -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", f"add {name}")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A checkout with an upstream that knows two of its three commits."""
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "-q")
    git(root, "remote", "add", "origin", URL)
    commit(root, "one")
    git(root, "tag", "-a", "v1", "-m", "v1")
    commit(root, "two")
    git(root, "update-ref", "refs/remotes/origin/main", "HEAD")
    git(root, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    commit(root, "three")
    return root


def cloned(source: Source, folder: Path, box: Folder | None = None) -> Cloned:
    folder.mkdir(exist_ok=True)
    with bundled(source) as bundle:
        return clone(box or Folder(), source, bundle, str(folder))


@pytest.mark.requirement("I1")
@pytest.mark.requirement("I6")
def test_the_workspace_is_a_clone_at_the_current_branch_with_the_upstream_as_origin(host: Path, tmp_path: Path) -> None:
    git(host, "switch", "-q", "-c", "fix")
    head = commit(host, "src/four")
    inside = tmp_path / "inside"
    assert cloned(inspect(host), inside) == Cloned(head, "fix")
    assert git(inside, "remote", "-v").splitlines()[0].split()[1] != URL  # the person's rewrite, when git is asked
    assert git(inside, "config", "remote.origin.url") == URL
    assert git(inside, "status", "--porcelain") == ""
    assert (inside / "src/four").read_text() == "text\n"
    assert git(inside, "rev-parse", "origin/main") == git(host, "rev-parse", "origin/main")
    assert git(inside, "rev-parse", "origin/HEAD") == git(host, "rev-parse", "origin/main")
    assert git(inside, "describe", "--long").startswith("v1-3-")
    assert git(inside, "config", "--local", "user.name") == "Kim Doe"
    assert not (inside / ".cspace-clone").exists()
    assert git(inside, "fsck", "--strict") == ""


def test_a_branch_that_the_upstream_has_tracks_it(host: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    cloned(inspect(host), inside)
    assert git(inside, "-c", "color.ui=false", "status", "-sb").splitlines()[0] == "## main...origin/main [ahead 1]"


def test_a_detached_head_stays_detached(host: Path, tmp_path: Path) -> None:
    git(host, "checkout", "-q", "--detach", "HEAD~1")
    inside = tmp_path / "inside"
    assert cloned(inspect(host), inside) == Cloned(git(host, "rev-parse", "HEAD"), None)


@pytest.mark.requirement("I2")
@pytest.mark.parametrize(("wanted", "at"), [("fix/here", "here"), ("fix/there", "there"), ("fix/new", "main")])
def test_a_wanted_branch_is_the_hosts_or_the_upstreams_or_new(host: Path, tmp_path: Path, wanted: str, at: str) -> None:
    git(host, "branch", "fix/here", "HEAD~1")
    git(host, "update-ref", "refs/remotes/origin/fix/there", "HEAD~2")
    commits = {"here": git(host, "rev-parse", "HEAD~1"), "there": git(host, "rev-parse", "HEAD~2")}
    commits["main"] = git(host, "rev-parse", "HEAD")
    assert cloned(inspect(host, wanted), tmp_path / "inside") == Cloned(commits[at], wanted)


def test_a_bad_branch_is_refused(host: Path) -> None:
    with pytest.raises(UserError, match=r"'a\.\.b/c' cannot be the name of a branch"):
        inspect(host, "a..b/c")


def test_a_shallow_host_makes_a_shallow_workspace(host: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{host}", str(shallow))
    inside = tmp_path / "inside"
    cloned(inspect(shallow), inside)
    assert git(inside, "rev-list", "--count", "HEAD") == "1"
    assert git(inside, "rev-parse", "--is-shallow-repository") == "true"
    commit(inside, "more")


def test_a_worktree_and_a_sha256_repository_work(host: Path, tmp_path: Path) -> None:
    git(host, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    assert cloned(inspect(tmp_path / "side"), tmp_path / "a").branch == "side"
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", "--object-format=sha256", str(other))
    head = commit(other, "one")
    assert len(head) == 64
    assert cloned(inspect(other), tmp_path / "b").commit == head


def test_a_path_with_spaces_and_quotes_survives(tmp_path: Path) -> None:
    root = tmp_path / "my 'shop' \"x\""
    root.mkdir()
    git(root, "init", "-q")
    commit(root, "with space/ä\n'\"")
    inside = tmp_path / "in side"
    cloned(inspect(root), inside)
    assert (inside / "with space/ä\n'\"").exists()


def test_cloning_again_changes_nothing_and_keeps_work(host: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    box = Folder()
    cloned(inspect(host), inside, box)
    assert exists(box, str(inside))
    (inside / "one").write_text("changed\n")
    made = commit(inside, "mine")
    (inside / "new").write_text("new\n")
    (inside / "one").unlink()
    assert cloned(inspect(host), inside, box).commit == made
    assert git(inside, "status", "--porcelain").splitlines() == ["D one", "?? new"]


@pytest.mark.parametrize("moment", ["fetch", "reset"])
def test_a_clone_that_was_cut_off_is_taken_up_again(host: Path, tmp_path: Path, moment: str) -> None:
    inside = tmp_path / "inside"
    broken = tmp_path / "broken"
    broken.mkdir()
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    (broken / "git").write_text(f'#!/bin/sh\nfor w in "$@"; do [ "$w" = {moment} ] && exit 9; done\nexec {real} "$@"\n')
    (broken / "git").chmod(0o755)
    with pytest.raises(UserError) as caught:
        cloned(inspect(host), inside, Folder(fail=str(broken)))
    assert caught.value.code == "workspace-failed"
    assert not exists(Folder(), str(inside))
    assert not unsaved(Folder(), [host], str(inside))
    cloned(inspect(host), inside)
    assert git(inside, "status", "--porcelain") == ""
    assert not (inside / ".cspace-clone").exists()


def test_files_without_a_repository_are_never_overwritten(host: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "precious").write_text("mine")
    with pytest.raises(UserError) as caught:
        cloned(inspect(host), inside)
    assert caught.value.code == "workspace-occupied"
    assert [path.name for path in inside.iterdir()] == ["precious"]
    assert unsaved(Folder(), [host], str(inside)).files == ("precious",)


def test_an_inherited_git_dir_does_not_aim_us_elsewhere(
    host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    git(tmp_path, "init", "-q", str(elsewhere))
    head = git(host, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(elsewhere / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(elsewhere))
    monkeypatch.setenv("GIT_INDEX_FILE", str(elsewhere / "index"))
    assert inspect(host).commit == head
    assert cloned(inspect(host), tmp_path / "inside").commit == head
    assert not (elsewhere / "index").exists()


def test_hooks_of_the_host_do_not_run_and_its_index_is_not_touched(host: Path, tmp_path: Path) -> None:
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc"):
        path = host / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran-{hook}\n")
        path.chmod(0o755)
    os.utime(host / "one")
    before = (host / ".git/index").read_bytes()
    cloned(inspect(host), tmp_path / "inside")
    assert not list(tmp_path.glob("ran-*"))
    assert (host / ".git/index").read_bytes() == before


# What stays behind


def test_uncommitted_changes_stay_on_the_host_and_that_is_said(host: Path, tmp_path: Path) -> None:
    assert inspect(host).notes == ()
    (host / "one").write_text("changed\n")
    (host / "new").write_text("new\n")
    (host / ".x.swp").write_text("ignored by the person's own configuration")
    source = inspect(host)
    assert source.notes == ("uncommitted changes on the host stay there (2 paths); commit them to bring them along",)
    inside = tmp_path / "inside"
    cloned(source, inside)
    assert (inside / "one").read_text() == "text\n"
    assert not (inside / "new").exists()


def test_submodules_and_lfs_are_said_to_stay_behind(host: Path) -> None:
    commit(host, ".gitmodules", '[submodule "x"]\n path = x\n url = https://example.com/x\n')
    commit(host, "assets/.gitattributes", "*.png filter=lfs diff=lfs merge=lfs -text\n")
    assert [note.split()[0] for note in inspect(host).notes] == ["submodules", "files"]


def test_a_repository_without_a_remote_leaves_origin_unset_and_says_so(host: Path, tmp_path: Path) -> None:
    git(host, "remote", "remove", "origin")
    source = inspect(host)
    assert source.origin is None
    assert source.notes == ("the repository has no remote, so 'origin' is not set in the instance",)
    cloned(source, tmp_path / "inside")
    assert git(tmp_path / "inside", "remote") == ""


def test_a_remote_of_another_name_becomes_origin(host: Path, tmp_path: Path) -> None:
    git(host, "remote", "rename", "origin", "upstream")
    cloned(inspect(host), tmp_path / "inside")
    assert git(tmp_path / "inside", "config", "remote.origin.url") == URL
    assert git(tmp_path / "inside", "rev-parse", "origin/main") == git(host, "rev-parse", "upstream/main")


@pytest.mark.parametrize(
    ("url", "kept_as"),
    [
        ("https://kim:secret@example.com/x.git", "https://example.com/x.git"),
        ("https://ghp_token@example.com:8443/x.git", "https://example.com:8443/x.git"),
        ("ssh://git@example.com:22/x.git", "ssh://git@example.com:22/x.git"),
        ("ssh://git:secret@example.com/x.git", "ssh://git@example.com/x.git"),
        ("https://example.com/a@b.git", "https://example.com/a@b.git"),
        ("hg::https://kim:secret@example.com/x", "hg::https://example.com/x"),
        ("https://example.com/x.git?private_token=secret", "https://example.com/x.git"),
        ("https://kim@example.com/x.git?a=b#secret", "https://example.com/x.git"),
        ("ssh://git@example.com/c#/x.git", "ssh://git@example.com/c#/x.git"),
    ],
)
@pytest.mark.requirement("I6")
def test_no_credential_goes_in_with_the_url(host: Path, url: str, kept_as: str) -> None:
    assert without_credentials(url) == kept_as
    git(host, "remote", "set-url", "origin", url)
    assert inspect(host).origin == kept_as
    assert any("it may be a token" in note for note in inspect(host).notes) == ("?" in url)


def test_an_upstream_on_the_hosts_disk_is_named_with_a_note(host: Path, tmp_path: Path) -> None:
    git(host, "remote", "set-url", "origin", "../bare.git")
    source = inspect(host)
    assert source.origin == str(tmp_path / "bare.git")
    assert "which the instance cannot reach" in source.notes[0]
    git(host, "remote", "set-url", "origin", "git@example.com:team/shop.git")
    assert inspect(host).origin == "git@example.com:team/shop.git"


# Bad input


def test_not_a_repository(tmp_path: Path) -> None:
    for act in (inspect, Project.at):
        with pytest.raises(UserError) as caught:
            act(tmp_path)
        assert (caught.value.code, caught.value.exit_status) == ("not-a-repository", Exit.BAD_INPUT)
    with pytest.raises(UserError) as caught:
        Project.at(tmp_path / "missing")
    assert caught.value.code == "no-directory"


@pytest.mark.parametrize("branch", [None, "fix/new"])
def test_no_commits(tmp_path: Path, branch: str | None) -> None:
    git(tmp_path, "init", "-q", "empty")
    with pytest.raises(UserError) as caught:
        inspect(tmp_path / "empty", branch)
    assert (caught.value.code, caught.value.exit_status) == ("no-commits", Exit.BAD_INPUT)


def test_a_project_is_named_after_its_top_folder(host: Path, tmp_path: Path) -> None:
    (host / "deep/er").mkdir(parents=True)
    assert Project.at(host / "deep/er") == Project("shop", host)
    assert Project.at(host, "store").name == "store"


# What would be lost


@pytest.fixture
def inside(host: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "inside"
    cloned(inspect(host), folder)
    return folder


@pytest.mark.requirement("I8")
def test_a_fresh_workspace_holds_nothing_that_would_be_lost(host: Path, inside: Path) -> None:
    assert not unsaved(Folder(), [host], str(inside))
    # Without the host's repository the commit that was never pushed is the workspace's alone.
    (only,) = unsaved(Folder(), [], str(inside)).commits
    assert only == (git(host, "rev-parse", "HEAD"), "add three")


@pytest.mark.requirement("I8")
def test_uncommitted_files_would_be_lost_ignored_ones_not(host: Path, inside: Path) -> None:
    (inside / ".gitignore").write_text("node_modules\n")
    (inside / "node_modules").mkdir()
    (inside / "node_modules/x").write_text("x")
    (inside / "one").write_text("changed")
    (inside / "two").unlink()
    (inside / "dir ä").mkdir()
    (inside / "dir ä/|new\nfile").write_text("x")
    assert set(unsaved(Folder(), [host], str(inside)).files) == {".gitignore", "one", "two", "dir ä/"}


@pytest.mark.requirement("I8")
def test_commits_on_any_branch_stash_or_detached_head_would_be_lost_until_somebody_has_them(
    host: Path, inside: Path
) -> None:
    on_main = commit(inside, "four")
    git(inside, "switch", "-q", "-c", "side")
    on_side = commit(inside, "five")
    git(inside, "checkout", "-q", "--detach")
    detached = commit(inside, "six")
    (inside / "one").write_text("stashed")
    git(inside, "stash")
    found = unsaved(Folder(), [host], str(inside))
    assert {on_main, on_side, detached} < {identity for identity, _ in found.commits}
    assert any("WIP" in subject for _, subject in found.commits)
    git(inside, "stash", "drop")
    git(inside, "update-ref", "refs/remotes/origin/side", on_side)  # as a push does
    assert [identity for identity, _ in unsaved(Folder(), [host], str(inside)).commits] == [detached]
    git(host, "fetch", "-q", str(inside), f"{detached}:refs/heads/saved")
    assert not unsaved(Folder(), [host], str(inside))


def test_commits_that_the_host_has_but_no_reference_reaches_are_not_safe(host: Path, inside: Path) -> None:
    made = commit(inside, "four")
    git(host, "fetch", "-q", str(inside), f"{made}:refs/heads/gone")
    git(host, "branch", "-q", "-D", "gone")
    assert kept(host, [made, git(host, "rev-parse", "HEAD"), "0" * 40]) == {git(host, "rev-parse", "HEAD")}
    assert [identity for identity, _ in unsaved(Folder(), [host], str(inside)).commits] == [made]


def test_work_in_further_worktrees_counts(host: Path, inside: Path, tmp_path: Path) -> None:
    git(inside, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side tree"))
    (tmp_path / "side tree/draft").write_text("x")
    assert unsaved(Folder(), [host], str(inside)).files == ("draft",)


def test_a_worktree_that_cannot_be_seen_counts_where_only_the_workspace_can_be(
    host: Path, inside: Path, tmp_path: Path
) -> None:
    git(inside, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (tmp_path / "side").rename(tmp_path / "elsewhere")
    assert not unsaved(Folder(), [host], str(inside))
    (found,) = unsaved(Folder(), [host], str(inside), partial=True).files
    assert found.startswith(str(tmp_path / "side"))


def test_a_workspace_without_anything_is_empty(tmp_path: Path) -> None:
    assert not unsaved(Folder(), [], str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    assert not unsaved(Folder(), [], str(tmp_path / "empty"))


@pytest.mark.parametrize("part", ["HEAD", "index", "config"])
def test_a_broken_repository_is_not_taken_for_an_empty_one(inside: Path, host: Path, part: str) -> None:
    (inside / ".git" / part).write_text("[nonsense")
    with pytest.raises(UserError) as caught:
        unsaved(Folder(), [host], str(inside))
    assert caught.value.code == "work-unknown"


def test_a_repository_made_by_hand_without_commits_is_listed(host: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    git(tmp_path, "init", "-q", str(folder))
    (folder / "a").write_text("a")
    git(folder, "add", "a")
    assert unsaved(Folder(), [host], str(folder)).files == ("a",)


def test_losses_are_described_in_bounded_lines() -> None:
    lost = Unsaved(tuple(f"f{n}" for n in range(30)), tuple((f"{n:040}", f"s{n}") for n in range(12)))
    lines = lost.describe(most=10)
    assert len(lines) == 22
    assert lines[10] == "uncommitted: and 20 more"
    assert lost.to_json()["file_count"] == 30
