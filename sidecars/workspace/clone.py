"""Make the instance's repository from a bundle. Done again over a finished workspace it changes nothing.

The repository is made in a folder beside and moved into place in one step, so a clone that was cut off is never mistaken for a
workspace, and a workspace is never taken for a clone that was cut off: files are only ever written where none are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from netpolicy.errors import Exit, UserError
from sidecars.workspace.box import Box
from sidecars.workspace.source import Source

_CHUNK = 1 << 20

#: Reads exactly `size` bytes: the end of a stream does not reach every engine's containers.
_SCRIPT = r"""
set -eu
size=$1 format=$2 shallow=$3 branch=$4 commit=$5 origin=$6 tracking=$7 default=$8 name=$9; shift 9; email=$1 folder=$2; shift 2
cd "$folder"
unset $(env | sed -n 's/^\(GIT_[A-Z_]*\)=.*/\1/p') || :
stage=.cspace-clone
if [ ! -e .git ]; then
  rm -rf "$stage"
  [ -z "$(ls -A)" ] || { echo "the folder holds files but no repository" >&2; exit 21; }
  git init -q --template= --object-format="$format" "$stage"
  if [ -n "$shallow" ]; then printf '%s\n' $shallow > "$stage/.git/shallow"; fi
  head -c "$size" > "$stage/bundle"
  there() { git -C "$stage" "$@"; }
  there fetch -q --no-tags --update-head-ok "$PWD/$stage/bundle" "$@" 'refs/tags/*:refs/tags/*'
  rm "$stage/bundle"
  there update-ref refs/cspace/base "$commit"
  if [ -n "$origin" ]; then there remote add origin "$origin"; fi
  if [ -n "$default" ]; then there symbolic-ref refs/remotes/origin/HEAD "refs/remotes/origin/$default"; fi
  if [ -n "$branch" ]; then there symbolic-ref HEAD "refs/heads/$branch"; else there update-ref --no-deref HEAD "$commit"; fi
  if [ -n "$tracking" ] && [ -n "$origin" ]; then
    there config "branch.$branch.remote" origin; there config "branch.$branch.merge" "refs/heads/$branch"
  fi
  if [ -n "$name" ]; then there config user.name "$name"; fi
  if [ -n "$email" ]; then there config user.email "$email"; fi
  mv "$stage/.git" .git
  rmdir "$stage"
fi
if [ -d .git ] && [ ! -e .git/index ]; then
  rm -f .git/index.lock
  git reset -q --hard
fi
git rev-parse HEAD
git symbolic-ref -q --short HEAD || :
"""


@dataclass(frozen=True, slots=True)
class Cloned:
    """The workspace's state after `clone`."""

    commit: str
    branch: str | None


def exists(box: Box, folder: str = "/workspace") -> bool:
    """Whether a finished workspace is there, so that no bundle need be made."""
    return box.run(["test", "-e", f"{folder}/.git/index"]).status == 0


def clone(
    box: Box, source: Source, bundle: Path, folder: str = "/workspace", progress: Callable[[float], None] | None = None
) -> Cloned:
    """Send the bundle and clone from it at the source's branch, with origin set to the upstream's URL.

    Args:
        box: Where the workspace is.
        source: What the bundle was made of.
        bundle: The file.
        folder: The workspace's folder in the box, which exists.
        progress: Told what fraction was sent, 0 to 1; may raise to cancel.

    Raises:
        UserError: ``workspace-failed`` with git's own words; ``workspace-occupied`` where files without a repository are found.
    """
    size = bundle.stat().st_size
    identity = dict(source.identity)
    argv = [
        "sh", "-c", _SCRIPT, "clone", str(size), source.object_format, " ".join(source.shallow), source.branch or "",
        source.commit, source.origin or "", "yes" if source.tracking else "", source.default or "",
        identity.get("user.name", ""), identity.get("user.email", ""), folder, *source.refspecs,
    ]  # fmt: skip
    ended = box.run(argv, _chunks(bundle, size, progress))
    if ended.status == 21:
        raise UserError(
            "workspace-occupied",
            f"{folder} of the instance holds files but no repository, so nothing was cloned into it",
            hint="Look at it with 'cspace ssh', or remove the instance with 'cspace down --force'.",
            exit_status=Exit.CONFLICT,
        )
    lines = ended.stdout.decode(errors="replace").splitlines()
    if ended.status != 0 or not lines:
        raise UserError(
            "workspace-failed",
            f"the repository could not be cloned into the instance: {ended.last_words}",
            details={"status": ended.status, "stderr": ended.stderr.decode(errors="replace")[-4000:]},
        )
    return Cloned(lines[0], lines[1] if len(lines) > 1 else None)


def _chunks(path: Path, size: int, progress: Callable[[float], None] | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            if progress is not None:
                progress(sent / size)
            yield chunk
            sent += len(chunk)
