"""What leaves an instance, judged where it arrives. Every refusal stands beside the same sender arriving unfiltered."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from instancing import SENDER, Machine, World, nonce, result_of, retried

from netpolicy.lab import Site
from sidecars import gate, images
from sidecars.engine import PROJECT, ContainerSpec
from sidecars.instance import Phase

pytestmark = pytest.mark.docker

#: Linux capabilities by number (linux/capability.h), without the three youngest: Docker 20.10 has no names for them, and
#: SYS_ADMIN includes them.
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
)
#: A refusal has to be told this fast, in milliseconds (F1).
QUICK = 100.0


@dataclass(frozen=True)
class Scene:
    """Two instances side by side, and a box in which root has every capability, on the first one's network."""

    world: World
    open: Site
    """Allowed at tcp/443."""
    closed: Site
    """Not allowed."""
    opened: Site
    """Its addresses are allowed at udp/5000."""

    def send(self, sender: str, *words: str) -> tuple[str, float]:
        """Send as `dev` in the instance, or as `root` with every capability beside it."""
        if sender == "dev":
            return self.world.send("mercury", *words)
        argv = ["/usr/bin/python3", "-I", "-", *words]
        return result_of(
            self.world.engine.containers.execs.run(self.box, argv, stdin=SENDER.read_bytes(), user="root").text
        )

    @property
    def box(self) -> str:
        return f"{self.world.project.name}-root"

    def address(self, site: Site, version: int) -> str:
        return site.v4 if version == 4 else site.v6

    def arrives(self, mark: str) -> bool:
        return bool(self.world.machine.lab.receiver.saw(mark))


@pytest.fixture(scope="module")
def scene(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        world = World.create(machine, tmp_path_factory.mktemp("project"))
        made = Scene(world, machine.lab.site(), machine.lab.site(), machine.lab.site())
        literals = [f"{made.opened.v4}:5000/udp", f"[{made.opened.v6}]:5000/udp"]
        world.policy = {"domains": ["api.github.com"], "allow": [f"{made.open.name}:443/tcp", *literals]}
        try:
            network = str(world.up("mercury").network)
            world.up("venus")
            spec = ContainerSpec(
                made.box, images.INSTANCE.name, {PROJECT: world.project.name, "cspace.instance": "mercury"},
                command=["sleep", "infinity"], user="root", network=network, cap_add=every_capability(), init=True,
                security_options=("seccomp=unconfined", "apparmor=unconfined"),
            )  # fmt: skip
            world.engine.containers.create(spec)
            world.engine.containers.start(made.box)
            yield made
        finally:
            world.engine.containers.remove(made.box)
            world.clear()


@pytest.fixture(params=["dev", "root"])
def sender(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def resolve(scene: Scene, sender: str, name: str, version: int) -> list[str]:
    """By the resolver that the container has; it is what opens an allowed name."""
    program = (
        "import socket, sys\n"
        f"family = socket.AF_INET if {version} == 4 else socket.AF_INET6\n"
        "try: print(*{i[4][0] for i in socket.getaddrinfo(sys.argv[1], 443, family)})\n"
        "except OSError as e: print('!', e)\n"
    )
    container = scene.box if sender == "root" else f"cspace-{scene.world.project.name}-mercury"
    text = scene.world.engine.containers.execs.run(container, ["/usr/bin/python3", "-I", "-c", program, name]).text
    return [] if text.startswith("!") else text.split()


@pytest.mark.requirement("F1")
@pytest.mark.requirement("F6")
def test_an_allowed_name_is_reached(scene: Scene, sender: str, version: int) -> None:
    address = scene.address(scene.open, version)
    assert resolve(scene, sender, scene.open.name, version) == [address]
    mark = nonce()
    assert scene.send(sender, "tcp", address, "443", mark)[0] == "sent"
    assert scene.arrives(mark)


@pytest.mark.requirement("F1")
def test_a_denied_name_is_not_even_asked_for(scene: Scene, sender: str, version: int) -> None:
    lab = scene.world.machine.lab
    fresh = lab.site()
    assert resolve(scene, sender, fresh.name, version) == []
    assert not [query for query in lab.dns.queries() if query.name == fresh.name]
    lab.host.reach(fresh.name)
    assert [query for query in lab.dns.queries() if query.name == fresh.name]


ROWS = {
    "denied-literal-tcp": ("tcp", "closed", 443),
    "denied-literal-ssh": ("tcp", "closed", 22),
    "other-port-of-an-allowed-address": ("tcp", "open", 80),
    "dns-over-tls": ("tcp", "closed", 853),
    "udp": ("udp", "closed", 5000),
    "udp-to-an-allowed-address": ("udp", "open", 443),
    "icmp": ("icmp", "closed", 0),
    "icmp-to-an-allowed-address": ("icmp", "open", 0),
}


@pytest.mark.requirement("F1")
@pytest.mark.requirement("F3")
@pytest.mark.parametrize("row", ROWS)
def test_what_is_not_allowed_does_not_arrive(scene: Scene, sender: str, version: int, row: str) -> None:
    kind, site, port = ROWS[row]
    resolve(scene, sender, scene.open.name, version)
    address = scene.address(getattr(scene, site), version)
    mark, control = nonce(), nonce()
    outcome, milliseconds = scene.send(sender, kind, address, str(port), mark)
    assert outcome != "sent"
    assert not scene.arrives(mark)
    if kind == "tcp":
        assert outcome == "Connection refused"
        assert milliseconds < QUICK
    assert scene.world.machine.unfiltered(kind, address, str(port), control)[0] == "sent"
    assert scene.arrives(control)


@pytest.mark.requirement("F1")
def test_hand_made_frames_and_odd_protocols_of_root_do_not_arrive(scene: Scene, version: int) -> None:
    address = scene.address(scene.closed, version)
    for kind in ("frame", "raw"):
        mark, control = nonce(), nonce()
        scene.send("root", kind, address, "5000", mark)
        assert not scene.arrives(mark)
        if kind == "raw":
            scene.world.machine.unfiltered(kind, address, "0", control)
            assert scene.arrives(control)
    # That the box can send hand-made frames at all: one to an address that is allowed arrives.
    mark = nonce()
    scene.send("root", "frame", scene.address(scene.opened, version), "5000", mark)
    assert scene.arrives(mark)


@pytest.mark.requirement("F1")
@pytest.mark.requirement("F3")
def test_another_resolver_is_answered_by_the_gate(scene: Scene, sender: str) -> None:
    lab = scene.world.machine.lab
    fresh = lab.site()
    container = scene.box if sender == "root" else f"cspace-{scene.world.project.name}-mercury"
    for extra in ([], ["+tcp"]):
        argv = ["dig", "+tries=1", "+time=5", "@203.0.113.53", fresh.name, "A", *extra]
        text = scene.world.engine.containers.execs.run(container, argv, ok=None).text
        assert "status: NXDOMAIN" in text
        assert "EDE: 15" in text
    label = fresh.name.split(".")[0]
    assert not scene.arrives(label)
    lab.host.run(["dig", "+tries=1", "+time=5", "@203.0.113.53", fresh.name, "A"])
    assert scene.arrives(label)


@pytest.mark.requirement("F13")
def test_the_host_is_not_reached_by_any_of_its_addresses(scene: Scene, sender: str, version: int) -> None:
    lab, info = scene.world.machine.lab, scene.world.list()["mercury"]
    links = lab.host.run(["ip", "-brief", "address"]).text
    uplink = next(line for line in links.splitlines() if line.startswith("up0"))
    gateways = [str(next(iter(network_hosts(subnet)))) for subnet in info.subnets]
    targets = [word.split("/")[0] for word in uplink.split()[2:] if not word.startswith("fe80")] + gateways
    with listening(scene) as (port, received):
        for address in targets:
            if (":" in address) != (version == 6):
                continue
            mark, control = nonce(), nonce()
            assert scene.send(sender, "tcp", address, str(port), mark)[0] == "Connection refused"
            assert scene.world.machine.unfiltered("tcp", address, str(port), control)[0] == "sent"
            retried(lambda control=control: control in received())
            assert mark not in received()


@pytest.mark.requirement("F2")
@pytest.mark.requirement("F13")
def test_a_sibling_is_not_reached(scene: Scene, sender: str, version: int) -> None:
    engine, project = scene.world.engine, scene.world.project.name
    venus = engine.containers.get(f"cspace-{project}-venus")
    assert venus is not None
    address = venus.addresses[0].v4 if version == 4 else venus.addresses[0].v6
    assert address is not None
    program = (
        "import socket\n"
        "s = socket.create_server(('::', 8000), family=socket.AF_INET6, dualstack_ipv6=True)\n"
        "print('ready', flush=True)\n"
        "while True:\n c, _ = s.accept(); print(c.recv(100).decode(), flush=True); c.sendall(b'ok'); c.close()\n"
    )
    with engine.containers.execs.open(venus.id, ["/usr/bin/python3", "-I", "-c", program], user="dev") as server:
        frames = server.frames()
        assert next(frames)[1] == b"ready\n"
        mark, control = nonce(), nonce()
        assert scene.send(sender, "tcp", address, "8000", mark)[0] == "Connection refused"
        argv = ["/usr/bin/python3", "-I", "-", "tcp", address, "8000", control]
        assert result_of(engine.containers.execs.run(venus.id, argv, stdin=SENDER.read_bytes()).text)[0] == "sent"
        assert next(frames)[1].decode().split() == [control]
    engine.containers.execs.run(venus.id, ["sh", "-c", "kill $(pgrep -f create_server)"], user="dev", ok=None)


@pytest.mark.requirement("F2")
def test_nothing_from_outside_begins_a_connection_into_an_instance(scene: Scene, version: int) -> None:
    engine, lab = scene.world.engine, scene.world.machine.lab
    mercury = engine.containers.get(f"cspace-{scene.world.project.name}-mercury")
    assert mercury is not None
    address = mercury.addresses[0].v4 if version == 4 else mercury.addresses[0].v6
    program = (
        "import socket\n"
        "s = socket.create_server(('::', 8000), family=socket.AF_INET6, dualstack_ipv6=True)\n"
        "print('ready', flush=True); c, _ = s.accept(); print(c.recv(100).decode(), flush=True); c.sendall(b'ok')\n"
    )
    uplink = "198.51.100.2" if version == 4 else "2001:db8:0:1::2"
    with engine.containers.execs.open(mercury.id, ["/usr/bin/python3", "-I", "-c", program], user="dev") as server:
        frames = server.frames()
        assert next(frames)[1] == b"ready\n"
        family = "-4" if version == 4 else "-6"
        lab.inet.run(["ip", family, "route", "replace", str(address), "via", uplink])
        try:
            argv = ["python3", "-I", "-", "tcp", str(address), "8000", nonce()]
            outcome = result_of(lab.inet.run(argv, stdin=SENDER.read_bytes()).text)[0]
        finally:
            lab.inet.run(["ip", family, "route", "delete", str(address)])
        assert outcome != "sent"
        control = nonce()
        assert scene.send("root", "tcp", str(address), "8000", control)[0] == "sent"
        assert next(frames)[1].decode().split() == [control]


@pytest.mark.requirement("F11")
@pytest.mark.requirement("F1")
def test_with_the_gate_killed_what_was_denied_stays_denied_and_a_restart_brings_the_policy_back(
    scene: Scene, sender: str, version: int
) -> None:
    closed, opened = scene.address(scene.closed, version), scene.address(scene.open, version)
    resolve(scene, sender, scene.open.name, version)
    engine = scene.world.engine
    found = gate.find(engine)
    assert found is not None
    engine.containers.kill(found.id)
    try:
        mark = nonce()
        assert scene.send(sender, "tcp", closed, "443", mark)[0] == "Connection refused"
        assert not scene.arrives(mark)
        assert scene.world.list()["mercury"].phase is Phase.DEGRADED
        # What was learned goes on to work until its time is up.
        mark = nonce()
        assert scene.send(sender, "tcp", opened, "443", mark)[0] == "sent"
        assert scene.arrives(mark)
    finally:
        engine.containers.start(found.id)
    assert retried(lambda: resolve(scene, sender, scene.open.name, version)) == [opened]
    mark = nonce()
    assert scene.send(sender, "tcp", opened, "443", mark)[0] == "sent"
    assert scene.arrives(mark)
    assert scene.send(sender, "tcp", closed, "443", nonce())[0] == "Connection refused"


@pytest.mark.requirement("F11")
def test_a_container_started_behind_our_back_is_locked_in_all_the_same(scene: Scene, version: int) -> None:
    """Whatever runs on the network of an instance that was never attached, or not any more, reaches nothing."""
    world, address = scene.world, scene.address(scene.open, version)
    network = f"stray-{world.project.name}"
    world.machine.host.docker(
        "network", "create", "--opt", "com.docker.network.bridge.name=csp-stray", "--ipv6",
        "--subnet", "10.250.0.0/28", "--subnet", "fd99::/64", network,
    )  # fmt: skip
    try:
        mark = nonce()
        argv = ["run", "--rm", "-i", "--network", network, images.INSTANCE.name, "/usr/bin/python3", "-I", "-"]
        text = world.machine.host.docker(*argv, "tcp", address, "443", mark, stdin=SENDER.read_bytes())
        assert result_of(text)[0] == "Connection refused"
        assert not scene.arrives(mark)
    finally:
        world.machine.host.docker("network", "rm", network)


def every_capability() -> tuple[str, ...]:
    """All that this machine has to give (linux/capability.h); some machines lack one, and Docker then refuses ``ALL``."""
    names = CAPABILITIES.split()
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    bounding = int(status["CapBnd"], 16)
    found = tuple(name for number, name in enumerate(names) if bounding & 1 << number)
    assert {"NET_ADMIN", "NET_RAW", "SYS_ADMIN"} <= set(found)
    return found


def network_hosts(subnet: str) -> Iterator[object]:
    from ipaddress import ip_network

    return iter(ip_network(subnet).hosts())


class listening:
    """A server on every address of the lab's host, and what it was sent."""

    def __init__(self, scene: Scene) -> None:
        self._node = scene.world.machine.lab.host
        self._received: list[str] = []

    def __enter__(self) -> tuple[int, Callable[[], str]]:
        self._server = self._node.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self._server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._server.bind(("::", 0))
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        return self._server.getsockname()[1], lambda: " ".join(self._received)

    def _serve(self) -> None:
        while True:
            try:
                stream, _ = self._server.accept()
            except OSError:
                return
            with stream:
                self._received.append(stream.recv(100).decode())
                stream.sendall(b"ok")

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
