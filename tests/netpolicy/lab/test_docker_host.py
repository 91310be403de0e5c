"""A whole Docker host inside a lab: its containers see the lab's internet and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.docker_host import DockerHost, docker_host

from netpolicy import command
from netpolicy.lab import Lab
from sidecars import images
from sidecars.install import ensure_engine

pytestmark = pytest.mark.docker

#: Copied from the machine's own engine; any image with a shell would do.
IMAGE = images.GATE.name


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    with ensure_engine().engine as own:
        images.ensure_all(own)


def traces(directory: Path) -> list[str]:
    """What is left of an engine: its directory, its mounts, its cgroups, its processes."""
    found = [str(directory)] if directory.exists() else []
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(directory) in line]
    cgroup = directory.name.rpartition("-")[0]
    found += [str(p) for p in Path("/sys/fs/cgroup").glob(f"*/{cgroup}")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if str(directory).encode() in words:
            found.append(words.decode().replace("\0", " "))
    return found


def test_containers_live_in_the_labs_internet_and_nothing_stays(lab: Lab) -> None:
    site = lab.site("reached.example")
    with docker_host(lab, images=[IMAGE]) as engine:
        talk = "exec 3<>/dev/tcp/reached.example/8080; head -1 <&3"
        assert engine.docker("run", "--rm", IMAGE, "bash", "-c", talk).startswith("netpolicy-lab tcp ")
        assert lab.receiver.arrived(site.v4, 8080)
        engine.docker("run", "--detach", "--name", "stays", IMAGE, "sleep", "1000")
        assert any(name.startswith("veth") for name in lab.host.run(["ls", "/proc/net/dev_snmp6"]).text.split())
        directory = engine.socket.parent
        assert traces(directory)
    assert not traces(directory)


def test_a_killed_owner_takes_the_engine_and_its_containers_with_it() -> None:
    program = (
        "import sys, threading; from netpolicy.lab import Lab\n"
        "from support.docker_host import docker_host\n"
        f"with Lab() as lab, docker_host(lab, images=['{IMAGE}']) as engine:\n"
        f"    engine.docker('run', '--detach', '{IMAGE}', 'sleep', '1000')\n"
        "    print(engine.socket.parent, flush=True)\n"
        "    threading.Event().wait()\n"
    )
    tests = str(Path(__file__).parents[2])
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": tests}
    )
    try:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().decode().strip())
        assert traces(directory)
    finally:
        owner.kill()
        owner.communicate()
    with Lab() as lab, docker_host(lab) as engine:
        assert engine.docker("ps", "--quiet") == ""
        assert not traces(directory)


def test_the_failure_to_start_is_told_with_the_engines_last_words(lab: Lab) -> None:
    with pytest.raises(AssertionError, match="nonsense"), docker_host(lab, options=["--storage-driver=nonsense"]):
        pass


def test_the_machines_own_engine_is_another_one(lab: Lab) -> None:
    with docker_host(lab) as engine:
        assert isinstance(engine, DockerHost)
        own = command.run(["docker", "info", "--format", "{{.DockerRootDir}}"]).text
        assert engine.docker("info", "--format", "{{.DockerRootDir}}") != own
        assert engine.docker("images", "--quiet") == ""
