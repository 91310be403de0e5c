"""What exists only in an instance's workspace, and would be lost with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netpolicy.errors import UserError
from sidecars.workspace.box import Box
from sidecars.workspace.git import LONG, git

#: How many commits and files are looked at; beyond it, the rest counts as lost work without being named.
LIMIT = 2000

#: Records end with NUL. "F path": a file or folder that is not committed; "C id subject": a commit no remote is known to have;
#: "ERROR": git could not tell.
_SCRIPT = r"""
set -u
cd "$1" 2>/dev/null || exit 0
limit=$2 partial=$3
export GIT_OPTIONAL_LOCKS=0
if [ ! -e .git ]; then
  ls -A | grep -vx '\.cspace-clone\|lost+found' | head -n "$limit" | while IFS= read -r file; do printf 'F %s\0' "$file"; done
  exit 0
fi
git rev-parse --git-dir >/dev/null || exit 3
# A first checkout that never ended holds nothing of anybody's.
[ -e .git/index ] || [ ! -d .git ] || exit 0
git worktree list --porcelain | sed -n 's/^worktree //p' | while IFS= read -r tree; do
  if [ ! -d "$tree" ]; then
    if [ -n "$partial" ]; then printf 'F %s (a worktree that cannot be seen from here)\0' "$tree"; fi
    continue
  fi
  { git -C "$tree" -c core.fsmonitor=false status --porcelain -z --no-renames --untracked-files=normal ||
    printf 'ERROR\0'; } | head -z -n "$limit" | sed -z 's|^.. |F |'
done
head=; if git rev-parse -q --verify HEAD >/dev/null; then head=HEAD; fi
git log -z --max-count="$limit" --format='C %H %s' --no-show-signature --no-color --all $head --not --remotes || exit 3
"""


@dataclass(frozen=True, slots=True)
class Unsaved:
    """Work that exists nowhere else."""

    files: tuple[str, ...] = ()
    """Changed and new files (a new folder counts once), relative to the workspace."""
    commits: tuple[tuple[str, str], ...] = ()
    """Id and subject of commits that neither a remote nor the host's repository is known to have, newest first."""

    def __bool__(self) -> bool:
        return bool(self.files or self.commits)

    def describe(self, most: int = 10) -> list[str]:
        """Lines for a person, at most about `most` of each kind."""
        lines = [f"uncommitted: {name}" for name in self.files[:most]]
        if len(self.files) > most:
            lines.append(f"uncommitted: and {_many(len(self.files) - most)} more")
        lines += [f"unpushed: {commit[:10]} {subject}" for commit, subject in self.commits[:most]]
        if len(self.commits) > most:
            lines.append(f"unpushed: and {_many(len(self.commits) - most)} more")
        return lines

    def to_json(self) -> dict[str, Any]:
        """The JSON form: counts, and the first hundred of each."""
        return {
            "files": list(self.files[:100]),
            "file_count": len(self.files),
            "commits": [{"id": commit, "subject": subject} for commit, subject in self.commits[:100]],
            "commit_count": len(self.commits),
        }


def unsaved(box: Box, hosts: Sequence[Path] = (), folder: str = "/workspace", *, partial: bool = False) -> Unsaved:
    """Find what would be lost with the workspace.

    Args:
        box: Where the workspace is.
        hosts: Repositories on the host, those that still exist; commits that one of their references reaches are safe.
        folder: The workspace's folder in the box.
        partial: The box holds only the workspace, so a worktree elsewhere cannot be looked into; it counts as work.

    Raises:
        UserError: ``work-unknown`` when it cannot be told.
    """
    ended = box.run(["sh", "-c", _SCRIPT, "unsaved", folder, str(LIMIT), "yes" if partial else ""])
    records = ended.stdout.decode(errors="replace").split("\0")
    if ended.status != 0 or "ERROR" in records:
        raise UserError("work-unknown", f"cannot tell whether work would be lost: {ended.last_words}")
    files: list[str] = []
    commits: list[tuple[str, str]] = []
    for record in records:
        kind, _, rest = record.partition(" ")
        if kind == "F":
            files.append(rest)
        elif kind == "C":
            commit, _, subject = rest.partition(" ")
            commits.append((commit, subject))
    for host in hosts:
        safe = kept(host, [commit for commit, _ in commits])
        commits = [pair for pair in commits if pair[0] not in safe]
    return Unsaved(tuple(files), tuple(commits))


def kept(root: Path, commits: Sequence[str]) -> frozenset[str]:
    """Those of the commits that a reference of the repository reaches. Empty where there is no repository."""
    if not commits or not root.is_dir():
        return frozenset()
    lines = "".join(f"{commit}\n" for commit in commits).encode()
    listed = git(root, "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=lines, ok=(0, 128), seconds=300)
    present = [line.split()[0] for line in listed.text.splitlines() if line.endswith(" commit")]
    if not present:
        return frozenset()
    lines = "".join(f"{commit}\n" for commit in present).encode()
    loose = git(root, "rev-list", "--stdin", "--not", "--all", stdin=lines, seconds=LONG).text.split()
    return frozenset(present) - frozenset(loose)


def _many(number: int) -> str:
    return str(number) if number < LIMIT - 20 else "many"
