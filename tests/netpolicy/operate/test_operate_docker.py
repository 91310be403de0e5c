"""A Docker network that exists is firewalled: real containers, Docker's own DNS, NAT and published ports."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from operatekit import Operator
from support.docker_host import DockerHost, docker_host

from netpolicy.lab import Lab, Site
from netpolicy.lab.addresses import RESOLVERS, UPLINK_HOST
from sidecars import images
from sidecars.install import ensure_engine

pytestmark = pytest.mark.docker

#: Copied from the machine's own engine; any image with Python and a shell would do.
IMAGE = images.GATE.name

#: A resolver on the host's loopback, as systemd-resolved or dnsmasq is.
LOOPBACK_RESOLVER = """
import socket, sys
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.bind(("127.0.0.53", 53))
print("ready", flush=True)
while True:
    query, who = own.recvfrom(4096)
    up = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    up.connect((sys.argv[1], 53))
    up.send(query)
    own.sendto(up.recv(4096), who)
"""


@dataclass
class Containers:
    """A Docker host in a lab, and what a test puts on it."""

    lab: Lab
    engine: DockerHost

    @property
    def operator(self) -> Operator:
        """Who types `netpolicy` there."""
        return Operator(self.lab, {"DOCKER_HOST": self.engine.url})

    def network(self, name: str, project: str = "") -> None:
        """A network as compose makes them, where a project is named."""
        label = ["--label", f"com.docker.compose.project={project}"] if project else []
        self.engine.docker("network", "create", *label, name)

    def start(self, name: str, network: str, *options: str, program: str = "sleep 1000") -> None:
        """A container that stays."""
        own = ["--detach", "--name", name, "--network", network, *options, "--entrypoint", "sh"]
        self.engine.docker("run", *own, IMAGE, "-c", program)

    def inside(self, name: str, script: str) -> str:
        """What a shell in the container prints."""
        return self.engine.docker("exec", name, "bash", "-c", script, ok=range(256))

    def reaches(self, name: str, site: Site, port: int = 443, *, by_address: bool = False) -> bool:
        """Whether a connection from the container gets to the far end: the receiver's word."""
        self.lab.receiver.forget()
        self.inside(name, f"timeout 5 bash -c ': </dev/tcp/{site.v4 if by_address else site.name}/{port}'")
        return bool(self.lab.receiver.arrived(site.v4, port))

    def published(self, port: int) -> bool:
        """Whether somebody outside gets an answer from a published port of this host."""
        address = UPLINK_HOST[0].partition("/")[0]
        return self.lab.inet.reach(f"{address}:{port}", seconds=3).reached

    def rules(self) -> list[str]:
        """Docker's own rules, without counters and dates."""
        saved = [self.lab.host.run([program]).text for program in ("iptables-save", "ip6tables-save")]
        return [re.sub(r"\[\d+:\d+\]", "", line) for text in saved for line in text.splitlines() if line[:1] != "#"]

    def clear(self) -> None:
        """Remove what a test has put here."""
        names = self.engine.docker("ps", "--all", "--quiet").split()
        if names:
            self.engine.docker("rm", "--force", *names)
        self.engine.docker("network", "prune", "--force")


@pytest.fixture(scope="module")
def host() -> Iterator[Containers]:
    with ensure_engine().engine as machine:
        images.ensure(machine, images.GATE)
    with Lab() as lab, docker_host(lab, images=[IMAGE]) as engine:
        lab.site("example.com")
        yield Containers(lab, engine)


@pytest.fixture
def docker(host: Containers) -> Iterator[Containers]:
    """The Docker host, emptied afterwards."""
    yield host
    with contextlib.suppress(AssertionError):
        host.operator.run("detach", "--all", "--yes")
    host.operator.close()
    host.clear()
    host.lab.host.use_resolvers(*RESOLVERS)


@pytest.mark.requirement("F10")
@pytest.mark.requirement("F14")
def test_the_networks_of_a_project_are_firewalled_and_no_others(docker: Containers) -> None:
    allowed, closed = docker.lab.site(), docker.lab.site()
    for name, project in (("shop_default", "shop"), ("shop_back", "shop"), ("other", "")):
        docker.network(name, project)
    docker.start("web", "shop_default")
    docker.start("db", "shop_default")
    docker.start("jobs", "shop_back")
    docker.start("free", "other")
    before = docker.rules()
    assert docker.reaches("web", closed)

    policy = docker.operator.policy(allowed.name)
    done = docker.operator.run("attach", "--compose", "shop", policy, "--json").json["attachments"]
    assert [(row["network"], row["verdict"]) for row in done] == [
        ("shop_back", "verified"),
        ("shop_default", "verified"),
    ]
    for name in ("web", "jobs"):
        assert docker.reaches(name, allowed)
        assert not docker.reaches(name, closed)
        assert not docker.reaches(name, closed, by_address=True)
    assert docker.reaches("free", closed)
    assert docker.inside("web", "getent hosts db").split()[-1] == "db", "containers find each other by name"
    assert docker.rules() == before

    # A container that starts later is behind it from its first packet on.
    docker.start("late", "shop_default")
    assert not docker.reaches("late", closed, by_address=True)
    assert docker.reaches("late", allowed)

    docker.operator.run("detach", "shop_default", "--yes")
    assert docker.reaches("web", closed)
    assert not docker.reaches("jobs", closed)


def test_published_ports_stay_reachable(docker: Containers) -> None:
    closed = docker.lab.site()
    docker.network("shop_default")
    docker.start("web", "shop_default", "--publish", "8088:80", program="exec python3 -m http.server 80")
    while "LISTEN" not in docker.inside("web", "grep -q ':0050 .* 0A' /proc/net/tcp* && echo LISTEN"):
        pass
    assert docker.published(8088)
    docker.operator.run("attach", "--docker-network", "shop_default", docker.operator.policy(), "--no-verify")
    assert docker.published(8088)
    assert docker.lab.host.reach("127.0.0.1:8088").reached
    assert not docker.reaches("web", closed, by_address=True)


def test_a_resolver_of_docker_that_asks_outside_is_found_out(docker: Containers) -> None:
    allowed = docker.lab.site(ttl=1)
    resolver = [sys.executable, "-c", LOOPBACK_RESOLVER, RESOLVERS[0]]
    process = docker.lab.host.popen(resolver, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        docker.lab.host.use_resolvers("127.0.0.53")
        docker.network("shop_default")
        docker.start("web", "shop_default")
        policy = docker.operator.policy(f"{allowed.name}:443")
        words = ("attach", "--docker-network", "shop_default", policy)
        done = docker.operator.run(*words, "--strict", "--json", status=1).json["attachments"][0]
        assert done["verdict"] == "degraded"
        gateway = done["attachment"]["gateways"][0]
        (reason,) = done["verification"]["reasons"]
        assert reason.startswith("web: names are asked of 127.0.0.11, which asks outside of the firewall")
        assert f"'dns: [{gateway}]' in compose.yaml" in reason

        # As it was told: with a resolver that is not on a loopback address, and Docker's own names go on.
        docker.engine.docker("rm", "--force", "web")
        docker.start("web", "shop_default", "--dns", gateway)
        docker.start("db", "shop_default", "--dns", gateway)
        assert docker.operator.run("verify", "shop_default", "--strict", "--json").json["verdict"] == "verified"
        assert docker.reaches("web", allowed)
        assert docker.inside("web", "getent hosts db").split()[-1] == "db"
    finally:
        docker.lab.host.stop(process)


def test_a_bridge_is_known_as_docker_calls_it(docker: Containers) -> None:
    docker.network("shop_default")
    docker.start("web", "shop_default")
    identity = docker.engine.docker("network", "inspect", "--format", "{{.Id}}", "shop_default")
    words = ("attach", "--bridge", f"br-{identity[:12]}", docker.operator.policy(), "--json")
    done = docker.operator.run(*words).json["attachments"][0]
    assert done["network"] == "shop_default"
    assert done["attachment"]["name"] == "shop_default"
    words = ("attach", "--docker-network", identity, docker.operator.policy(), "--no-verify", "--json")
    again = docker.operator.run(*words).json["attachments"][0]
    assert again["id"] == done["id"] == f"br{identity[:12]}"


def test_a_second_way_out_is_found_out(docker: Containers) -> None:
    docker.network("shop_default")
    docker.network("other")
    docker.engine.docker("network", "create", "--internal", "inner")
    docker.start("web", "shop_default")
    for name in ("other", "inner"):
        docker.engine.docker("network", "connect", name, "web")
    words = ("attach", "--docker-network", "shop_default", docker.operator.policy())
    done = docker.operator.run(*words, "--json").json["attachments"][0]
    assert done["verdict"] == "degraded"
    reason, *others = done["verification"]["reasons"]
    assert not others, others
    assert reason.startswith("web: a second way out, the Docker network other, is not attached")
    docker.operator.run("attach", "--docker-network", "other", docker.operator.policy(), "--no-verify")
    assert docker.operator.run("verify", "shop_default", "--json").json["verdict"] == "verified"


def test_a_network_made_anew_under_its_name_is_as_closed(docker: Containers) -> None:
    allowed, closed = docker.lab.site(), docker.lab.site()
    make = [
        "network",
        "create",
        "--subnet",
        "172.28.5.0/24",
        "-o",
        "com.docker.network.bridge.name=br-shop",
        "shop_default",
    ]
    docker.engine.docker(*make)
    docker.operator.run(
        "attach", "--docker-network", "shop_default", docker.operator.policy(allowed.name), "--no-verify"
    )
    docker.engine.docker("network", "rm", "shop_default")
    docker.engine.docker(*make)
    docker.start("web", "shop_default")
    assert not docker.reaches("web", closed, by_address=True)
    assert not docker.reaches("web", closed)
    assert docker.operator.run("verify", "shop_default", "--json").json["verdict"] == "verified"
    assert docker.reaches("web", allowed)
    docker.operator.run("detach", "shop_default", "--yes")
    assert docker.reaches("web", closed)


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["--docker-network", "nothing"], 3, "no-network"),
        (["--docker-network", "host"], 2, "not-a-bridge"),
        (["--compose", "nothing"], 3, "no-network"),
    ],
)
def test_what_docker_does_not_have(docker: Containers, words: list[str], status: int, code: str) -> None:
    error = docker.operator.run("attach", *words, docker.operator.policy(), "--json", status=status).json["error"]
    assert error["code"] == code


def test_an_engine_that_does_not_answer(docker: Containers) -> None:
    operator = Operator(docker.lab, {"DOCKER_HOST": "unix:///nowhere.sock"})
    error = operator.run("attach", "--docker-network", "x", operator.policy(), "--json", status=3).json["error"]
    assert error["code"] == "docker"
