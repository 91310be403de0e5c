"""An instance against the bare minimum: `cspace up` with images present, beside `docker run` and `git clone` in the same image.

Both make the same clone of the same repository in the same image; the instance has its own network, the firewall, and the
verification on top. They take turns; medians of one run. Needs a Docker engine. Usage: up.py [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from _table import ms, show

from netpolicy.command import run

IMAGE = "cspace-instance"
BARE = f"cspace-bench-{os.getpid()}"
CSPACE = Path(__file__).parent.parent / ".venv/bin/cspace"


def make_repository(root: Path) -> None:
    """A repository of 200 files and 20 commits."""
    git = ["git", "-C", str(root), "-c", "user.name=bench", "-c", "user.email=bench@example.com"]
    run(["git", "init", "-q", "-b", "main", str(root)])
    for commit in range(20):
        for file in range(10):
            (root / f"file{commit * 10 + file}.txt").write_text(f"{commit} {file}\n" * 200)
        run([*git, "add", "."])
        run([*git, "commit", "-q", "-m", f"commit {commit}"])


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def bare(root: Path) -> None:
    """What anybody would type: a container, and a clone in it."""
    run(["docker", "run", "-d", "--init", "--name", BARE, "-v", f"{root}:/src:ro", IMAGE])
    clone = "git config --global --add safe.directory /src/.git && git clone -q /src /tmp/clone"
    run(["docker", "exec", BARE, "sh", "-c", clone])


def instance(root: Path) -> None:
    """The same through the kit."""
    done = run([str(CSPACE), "up", "bench", "--no-claude", "--json"], cwd=root, seconds=300)
    assert json.loads(done.text)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    ours, theirs, again = [], [], []
    with tempfile.TemporaryDirectory(prefix="cspace-bench-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # the bare container reads it as another user
        make_repository(root)
        instance(root)  # builds images and starts the gate where they are not there yet
        run([str(CSPACE), "down", "bench", "--force"], cwd=root)
        for _ in range(rounds):
            try:
                theirs.append(timed(lambda: bare(root)))
            finally:
                run(["docker", "rm", "-f", BARE])
            try:
                ours.append(timed(lambda: instance(root)))
                again.append(timed(lambda: instance(root)))
            finally:
                run([str(CSPACE), "down", "bench", "--force"], cwd=root)
    peer = median(theirs)
    show(
        f"An instance, images present (medians of {rounds}, one run)",
        ("what", "ms", "ratio"),
        [
            ("docker run + git clone", ms(peer), "1.00"),
            ("cspace up (network, lock, clone, policy, verified)", ms(median(ours)), f"{median(ours) / peer:.2f}"),
            ("cspace up again (nothing to do but verify)", ms(median(again)), f"{median(again) / peer:.2f}"),
        ],
    )


if __name__ == "__main__":
    main()
