"""A whole Docker host inside a lab: a dockerd of its own whose only uplink is the lab's internet.

dockerd runs in a process and a mount namespace of its own, so that killing one process ends its containers and their
mounts with it, and nothing of the machine's own engine is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from netpolicy import command
from netpolicy.lab import Lab, Node, ownership

START_SECONDS = 60
#: An engine with both images and its containers needs about 2 GB; with less memory than this it is kept on disk, in bytes.
_ENOUGH = 8 << 30
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class DockerHost:
    """A running engine."""

    socket: Path
    node: Node
    """The lab namespace it runs in; its bridges are there."""
    process: subprocess.Popen[bytes]
    """What holds it: with its end everything of the engine ends."""

    @property
    def url(self) -> str:
        """For DOCKER_HOST and ``docker -H``."""
        return f"unix://{self.socket}"

    def docker(self, *words: str, seconds: float = 60, ok: Sequence[int] = (0,), stdin: bytes = b"") -> str:
        """Run the docker client against it; returns what it printed."""
        return command.run(["docker", "-H", self.url, *words], seconds=seconds, ok=ok, stdin=stdin).text

    def load(self, *images: str) -> None:
        """Copy images over from the machine's own engine, all at once: what they share is copied once."""
        if images:
            with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
                subprocess.run(
                    ["docker", "-H", self.url, "load", "-q"],
                    stdin=saving.stdout, stdout=subprocess.DEVNULL, timeout=300, check=True,
                )  # fmt: skip
            assert saving.returncode == 0

    def kill_daemon(self) -> None:
        """Kill dockerd alone, as a crash does: its containers go on. Nothing is started again before `boot`."""
        self._hold.touch()
        self._inside(f"kill -9 $(cat {self.socket.parent}/pid)")

    def kill_everything(self) -> None:
        """Kill dockerd and all containers, as a power cut does. Nothing is started again before `boot`."""
        self._hold.touch()
        # All but the first process, which waits for `boot`; the shell that kills is not among those it kills.
        self._inside("kill -9 -1")

    def boot(self) -> None:
        """Start dockerd again, and wait until it answers."""
        self._hold.unlink()
        _wait(self.socket, self.process, self.socket.parent / "dockerd.log")

    @property
    def _hold(self) -> Path:
        return self.socket.parent / "hold"

    def _inside(self, script: str) -> None:
        first = _child(self.process.pid)
        ended = f"until [ -e {self.socket.parent}/held ]; do sleep 0.05; done"
        command.run(["nsenter", f"--target={first}", "--pid", "sh", "-c", f"{script}; {ended}"])


#: The first process of the engine's processes: $0 is its directory. Where there is a file `hold` when dockerd has ended, it is started
#: again as soon as that has gone; otherwise all ends with it.
_FIRST = """
while :; do
  "$@"
  [ -e "$0/hold" ] || exit 1
  : > "$0/held"
  while [ -e "$0/hold" ]; do sleep 0.05; done
  rm "$0/held"
done
"""


@contextlib.contextmanager
def docker_host(lab: Lab, *, images: Sequence[str] = (), options: Sequence[str] = ()) -> Iterator[DockerHost]:
    """Start an engine on `lab.host`, with `images` copied from the machine's own; everything is gone afterwards.

    Args:
        lab: Whose host the engine runs on.
        images: Loaded before it is handed out.
        options: Further words for dockerd's command line.
    """
    _collect_cgroups()
    name = ownership.fresh()
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(_remove_cgroups, name)
        socket, log = directory / "docker.sock", directory / "dockerd.log"
        # Not the machine's own /etc/docker/daemon.json, which may name hosts and pools of its own.
        configuration = directory / "daemon.json"
        configuration.write_text("{}")
        words = [
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(_in_memory(directory / "d") if _available() > _ENOUGH else ()),
            *("sh", "-c", _FIRST, str(directory)),
            *("dockerd", "--data-root", str(directory / "d"), "--exec-root", str(directory / "e")),
            *("--pidfile", str(directory / "pid"), "--host", f"unix://{socket}"),
            *("--config-file", str(configuration)),
            *("--cgroup-parent", f"/{name}", "--shutdown-timeout", "1", *options),
        ]
        with log.open("wb") as output:
            process = lab.host.popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        stack.callback(lab.host.stop, process)
        _wait(socket, process, log)
        host = DockerHost(socket, lab.host, process)
        stack.callback(_remove_containers, host)
        host.load(*images)
        yield host


def _in_memory(directory: Path) -> list[str]:
    """Words before a command line that put a directory into memory: faster, and gone at once with the mount namespace."""
    return ["sh", "-c", 'mkdir "$0" && mount -t tmpfs -o mode=711 none "$0" && exec "$@"', str(directory)]


def _available() -> int:
    """Memory that can be had without swapping, in bytes."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) << 10


def _wait(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        done = command.run(["docker", "-H", f"unix://{socket}", "version", "--format", "{{json .Server}}"], ok=(0, 1))
        if done.status == 0 and json.loads(done.text):
            return
    raise AssertionError(f"dockerd did not start:\n{log.read_text()[-4000:]}")


def _child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


def _remove_containers(host: DockerHost) -> None:
    # By the engine itself, so that the cgroups go too; what it cannot remove any more dies with it.
    ids = host.docker("ps", "--all", "--quiet", ok=(0, 1)).split()
    if ids:
        host.docker("rm", "--force", "--volumes", *ids, ok=(0, 1), seconds=120)


def _remove_cgroups(name: str) -> None:
    for top in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")):
        for path, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()


def _collect_cgroups() -> None:
    for top in (*_CGROUPS.glob("npl-*"), *_CGROUPS.glob("*/npl-*")):
        if ownership.orphaned(top.name):
            _remove_cgroups(top.name)
