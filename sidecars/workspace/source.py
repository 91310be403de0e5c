"""What the host's repository offers: the branch to start from, where it came from, and what will not come along."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from netpolicy.errors import Exit, UserError
from sidecars.workspace.git import git


@dataclass(frozen=True, slots=True)
class Source:
    """A commit of a repository on the host, and the references that go with it."""

    root: Path
    commit: str
    """Full id of the commit that the instance starts at."""
    branch: str | None
    """The branch the instance will be on; None when the host's HEAD is detached and none was asked for."""
    origin: str | None
    """The upstream's URL without credentials; None where the repository has no remote."""
    refspecs: tuple[str, ...]
    """What to fetch from the bundle, as ``<reference on the host>:<reference inside>``."""
    tracking: bool = False
    """Whether the upstream is known to have the branch."""
    default: str | None = None
    """The upstream's default branch, where known."""
    object_format: str = "sha1"
    shallow: tuple[str, ...] = ()
    """Commits whose parents the host does not have (a shallow clone)."""
    identity: tuple[tuple[str, str], ...] = ()
    """The person's ``user.name`` and ``user.email``, so that commits inside carry them."""
    notes: tuple[str, ...] = field(default=())
    """One sentence each on what stays behind."""


def inspect(root: Path, branch: str | None = None) -> Source:
    """Look at a repository; changes nothing.

    Args:
        root: A folder inside a git working tree.
        branch: The branch that is wanted: one of the host's, one of the upstream's, or a new one. None: the current one.

    Raises:
        UserError: ``not-a-repository``, ``no-commits``, ``bad-branch``, or as `git`.
    """
    where = git(root, "rev-parse", "--is-inside-work-tree", "--show-object-format", ok=(0, 128))
    if where.status != 0 or not where.text.startswith("true"):
        raise UserError(
            "not-a-repository",
            f"{root} is not in the working tree of a git repository",
            hint="Go to a checkout, or make one: git init && git add -A && git commit -m first",
            exit_status=Exit.BAD_INPUT,
        )
    refs = _references(root)
    remote = _remote(root)
    tracked = f"refs/remotes/{remote}/" if remote else None
    start, name = _start(root, branch, refs, tracked)
    default = None
    if tracked and (target := git(root, "symbolic-ref", "-q", f"{tracked}HEAD", ok=(0, 1)).text).startswith(tracked):
        default = target.removeprefix(tracked)
    carried = [f"{start}:refs/heads/{name}" if name else f"{start}:refs/cspace/base"]
    for known in dict.fromkeys(b for b in (name, default) if b and tracked):
        if f"{tracked}{known}" in refs:
            carried.append(f"{tracked}{known}:refs/remotes/origin/{known}")
    commit = git(root, "rev-parse", f"{start}^{{commit}}").text
    origin, notes = _origin(root, remote)
    return Source(
        root=root,
        commit=commit,
        branch=name,
        origin=origin,
        refspecs=tuple(carried),
        tracking=bool(tracked and name and f"{tracked}{name}" in refs),
        default=default if tracked and default and f"{tracked}{default}" in refs else None,
        object_format=where.text.splitlines()[-1],
        shallow=_shallow(root),
        identity=_identity(root),
        notes=(*notes, *_left_behind(root, commit, current=branch is None or start == "HEAD")),
    )


def _references(root: Path) -> frozenset[str]:
    return frozenset(git(root, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes").text.splitlines())


def _start(root: Path, wanted: str | None, refs: frozenset[str], tracked: str | None) -> tuple[str, str | None]:
    """The reference to start from, and the branch to be on."""
    if git(root, "rev-parse", "-q", "--verify", "HEAD^{commit}", ok=(0, 1, 128)).status != 0 and (
        wanted is None or f"refs/heads/{wanted}" not in refs
    ):
        raise UserError(
            "no-commits",
            f"the repository {root} has no commits yet, so there is nothing to clone",
            hint="git add -A && git commit -m first",
            exit_status=Exit.BAD_INPUT,
        )
    if wanted is None:
        current = git(root, "symbolic-ref", "-q", "HEAD", ok=(0, 1)).text
        return (current, current.removeprefix("refs/heads/")) if current else ("HEAD", None)
    if git(root, "check-ref-format", "--branch", wanted, ok=(0, 1, 128)).status != 0:
        raise UserError(
            "bad-branch", f"{wanted!r} cannot be the name of a branch", exit_status=Exit.BAD_INPUT
        )  # fmt: skip
    for known in (f"refs/heads/{wanted}", f"{tracked}{wanted}"):
        if known in refs:
            return known, wanted
    return "HEAD", wanted


def _remote(root: Path) -> str | None:
    remotes = git(root, "remote").text.splitlines()
    if "origin" in remotes:
        return "origin"
    return remotes[0] if len(remotes) == 1 else None


def _origin(root: Path, remote: str | None) -> tuple[str | None, list[str]]:
    if remote is None:
        return None, ["the repository has no remote, so 'origin' is not set in the instance"]
    # Not `remote get-url`: that applies a person's rewrites (url.*.insteadOf).
    url = git(root, "config", f"remote.{remote}.url", ok=(0, 1)).text.split("\n")[-1]
    if not url:
        return None, [f"the remote {remote!r} has no URL, so 'origin' is not set in the instance"]
    if "://" in url:
        shown = without_credentials(url)
        cut = re.search("[?#]", url) and not re.search("[?#]", shown)
        return shown, ["what followed '?' or '#' in the URL of origin is left out: it may be a token"] if cut else []
    if re.match(r"[^/]+:", url):
        return url, []
    path = str((root / url).resolve())
    return path, [f"origin is a folder of the host ({path}), which the instance cannot reach"]


def without_credentials(url: str) -> str:
    """The URL without a password or token; a user name stays only where it is needed to log in (ssh).

    Of a web address what follows a ``?`` or ``#`` goes as a whole: some servers take tokens there, none needs it to find a repository.
    """
    helper = re.match(r"(?:[A-Za-z0-9+.-]+::)+", url)  # gitremote-helpers(7), e.g. hg::https://...
    if helper:
        return helper[0] + without_credentials(url[helper.end() :])
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        parts = parts._replace(query="", fragment="")
    if "@" not in parts.netloc:
        return urlunsplit(parts)
    user, _, host = parts.netloc.rpartition("@")
    kept = f"{user.split(':')[0]}@{host}" if parts.scheme in ("ssh", "git+ssh", "ssh+git") else host
    return urlunsplit(parts._replace(netloc=kept))


def _shallow(root: Path) -> tuple[str, ...]:
    if git(root, "rev-parse", "--is-shallow-repository").text != "true":
        return ()
    file = Path(git(root, "rev-parse", "--git-path", "shallow").text)
    return tuple((root / file).read_text().split())


def _identity(root: Path) -> tuple[tuple[str, str], ...]:
    found = ((key, git(root, "config", key, ok=(0, 1), personal=True).text) for key in ("user.name", "user.email"))
    return tuple((key, value) for key, value in found if value)


def _left_behind(root: Path, commit: str, *, current: bool) -> list[str]:
    notes = []
    if current:
        # With the person's own configuration, because it says which files they ignore everywhere.
        status = git(root, "status", "--porcelain", "-z", "--no-renames", personal=True, seconds=300).stdout
        changed = [entry for entry in status.split(b"\0") if entry]
        if changed:
            paths = f"{len(changed)} path" + ("s" if len(changed) > 1 else "")
            notes.append(f"uncommitted changes on the host stay there ({paths}); commit them to bring them along")
    if git(root, "cat-file", "-e", f"{commit}:.gitmodules", ok=(0, 1, 128)).status == 0:
        notes.append("submodules are not carried into the instance; their folders are empty")
    attributes = git(root, "grep", "-q", "filter=lfs", commit, "--", ".gitattributes", "**/.gitattributes", ok=(0, 1))
    if attributes.status == 0:
        notes.append("files kept by Git LFS are only pointers in the instance")
    return notes
