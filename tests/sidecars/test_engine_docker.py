"""The engine's objects on a real engine: the machine's own, with names of this test only."""

from __future__ import annotations

import io
import secrets
import tarfile
import threading
from collections.abc import Iterator

import pytest
from engine_things import fresh, remove

from netpolicy.errors import UserError
from sidecars.engine import PROJECT, ROLE, ContainerSpec, Engine, Mount, NetworkSpec, Port, Subnet, labels
from sidecars.images.base import BASE, ensure_base
from sidecars.install import ensure_engine
from sidecars.progress import silent

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with ensure_engine().engine as engine:
        ensure_base(engine, silent)
        yield engine


@pytest.fixture
def name(engine: Engine) -> Iterator[str]:
    """A name of this test's own; whatever carries it as its project is removed afterwards."""
    made = fresh(engine)
    yield made
    remove(engine, made)


def tags(name: str) -> dict[str, str]:
    return labels("dev", project=name, version="0")


@pytest.fixture
def box(engine: Engine, name: str) -> str:
    """A running container without a network."""
    engine.containers.create(
        ContainerSpec(name, BASE, tags(name), command=["sleep", "infinity"], network="none", init=True)
    )
    engine.containers.start(name)
    return name


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.uid, entry.mode = len(data), 1000, 0o640
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def test_an_old_engine_is_spoken_to_in_its_own_version(engine: Engine) -> None:
    info = engine.info()
    assert info.version
    major, minor = map(int, info.api.split("."))
    assert (1, 24) <= (major, minor) <= (1, 51)
    assert engine.local


def test_a_container_is_what_its_specification_says(engine: Engine, name: str) -> None:
    engine.volumes.create(f"{name}-v", tags(name))
    engine.containers.create(
        ContainerSpec(
            name,
            BASE,
            tags(name),
            command=["sleep", "infinity"],
            environment={"A": "b c"},
            user="1000:1000",
            working_dir="/tmp",
            hostname="mercury",
            network="none",
            mounts=(Mount("/v", f"{name}-v", read_only=True),),
            tmpfs={"/t": "size=1m"},
            cap_drop=("ALL",),
            cap_add=("NET_ADMIN",),
            security_options=("no-new-privileges",),
            read_only=True,
            init=True,
            processes=50,
            memory=64 << 20,
            processors=0.5,
        )
    )
    engine.containers.start(name)
    script = (
        'echo "$A:$(id -u):$PWD:$(hostname)"; grep -E "^(CapBnd|NoNewPrivs)" /proc/self/status | tr -s "\\t" " "; '
        "for f in /x /v/x /t/x; do touch $f 2>/dev/null && echo wrote $f; done; "
        "cat /proc/1/comm; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null"
    )
    said = engine.containers.execs.run(name, ["sh", "-c", script], ok=None).text.splitlines()
    assert said[:5] == [
        "b c:1000:/tmp:mercury",
        "CapBnd: 0000000000001000",
        "NoNewPrivs: 1",
        "wrote /t/x",
        "docker-init",
    ]
    assert "50" in said[5:]
    info = engine.containers.get(name)
    assert info is not None
    assert (info.running, info.state, info.restarts, info.labels[ROLE]) == (True, "running", 0, "dev")
    assert info.mounts == (Mount("/v", f"{name}-v", read_only=True),)
    assert info.started is not None
    assert info.started.tzinfo is not None


def test_a_container_is_found_by_label_stopped_and_removed(engine: Engine, box: str) -> None:
    assert [c.name for c in engine.containers.list({PROJECT: box, ROLE: None})] == [box]
    assert engine.containers.list({PROJECT: box, ROLE: "gate"}) == []
    assert engine.containers.stop(box, 1)
    info = engine.containers.get(box)
    assert info is not None
    assert not info.running
    assert info.exit_code == 143
    assert engine.containers.remove(box)
    assert not engine.containers.remove(box)
    assert engine.containers.get(box) is None


def test_a_command_runs_to_its_end(engine: Engine, box: str) -> None:
    execs = engine.containers.execs
    done = execs.run(
        box, ["sh", "-c", 'cat; echo "$X $PWD" >&2; exit 3'], stdin=b"in", env={"X": "y"}, cwd="/etc", ok=(3,)
    )
    assert (done.status, done.stdout, done.stderr) == (3, b"in", b"y /etc\n")
    with pytest.raises(UserError, match="ended with status 3") as caught:
        execs.run(box, ["sh", "-c", "exit 3"])
    assert caught.value.code == "program-failed"


def test_large_streams_pass_both_ways_at_once(engine: Engine, box: str) -> None:
    data = secrets.token_bytes(1 << 20) * 8
    assert engine.containers.execs.run(box, ["cat"], stdin=data).stdout == data


def test_a_command_that_does_not_read_its_input(engine: Engine, box: str) -> None:
    assert engine.containers.execs.run(box, ["true"], stdin=b"x" * (4 << 20)).status == 0


def test_a_command_past_its_deadline(engine: Engine, box: str) -> None:
    with pytest.raises(UserError) as caught:
        engine.containers.execs.run(box, ["sleep", "60"], seconds=0.3)
    assert caught.value.code == "program-timeout"


@pytest.mark.parametrize("round_", range(5))
def test_a_command_that_ends_at_once_loses_nothing(engine: Engine, box: str, round_: int) -> None:
    assert engine.containers.execs.run(box, ["echo", "here"]).stdout == b"here\n"


def test_a_terminal_has_the_size_it_was_given_and_follows(engine: Engine, box: str) -> None:
    # An old engine sets the first size a moment after the process has begun, so the process waits for it.
    script = 'until [ "$(stty size)" = "22 77" ]; do :; done; echo ready; until [ "$(stty size)" = "33 99" ]; do :; done; exit 4'
    with engine.containers.execs.open(box, ["timeout", "20", "bash", "-c", script], tty=True, size=(77, 22)) as stream:
        said, resized = b"", False
        for _, part in stream.frames():
            said += part
            if b"ready" in said and not resized:
                stream.resize(99, 33)
                resized = True
    assert said.split() == [b"ready"]
    assert stream.status() == 4


def test_a_pipe_talks_to_a_process(engine: Engine, box: str) -> None:
    with engine.containers.execs.open(box, ["sh", "-c", "while read x; do echo got $x; done; echo end >&2"]) as stream:
        pipe = stream.pipe()
        pipe.settimeout(10)
        for word in ("a", "b"):
            pipe.write(word.encode() + b"\n")
            assert pipe.read() == f"got {word}\n".encode()
        stream.end_input()
        assert pipe.read() == b""
        assert pipe.errors == "end"


def test_archives_go_in_and_out_of_a_container_that_does_not_run(engine: Engine, name: str) -> None:
    engine.volumes.create(f"{name}-v", tags(name))
    engine.containers.create(
        ContainerSpec(name, BASE, tags(name), command=["true"], network="none", mounts=(Mount("/v", f"{name}-v"),))
    )
    engine.containers.put(name, "/v", archive(a=b"1", b=b"22"))
    with engine.containers.fetch(name, "/v") as parts, tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as tar:
        found = {m.name: (m.size, m.uid, m.mode & 0o7777) for m in tar.getmembers() if m.isfile()}
    assert found == {"v/a": (1, 1000, 0o640), "v/b": (2, 1000, 0o640)}


def test_an_error_of_a_fetchs_reader_stays_what_it_is(engine: Engine, box: str) -> None:
    with pytest.raises(OSError, match="the reader's own"), engine.containers.fetch(box, "/etc/hostname"):
        raise OSError("the reader's own")


def test_a_network_is_what_its_specification_says_and_its_bridge_name_is_taken_once(engine: Engine, name: str) -> None:
    bridge = f"cst-{secrets.token_hex(4)}"
    second = int(secrets.token_hex(1), 16)
    spec = NetworkSpec(
        name, tags(name), (Subnet(f"10.214.{second}.0/28", f"10.214.{second}.1"),),
        options={"com.docker.network.bridge.name": bridge},
    )  # fmt: skip
    engine.networks.create(spec)
    found = engine.networks.get(name)
    assert found is not None
    assert (found.interface, found.subnets, found.containers) == (bridge, spec.subnets, {})
    again = NetworkSpec(f"{name}-2", tags(name), (), options=spec.options)
    with pytest.raises(UserError) as caught:
        engine.networks.create(again)
    assert caught.value.code == "interface-taken"
    overlapping = NetworkSpec(f"{name}-3", tags(name), spec.subnets)
    with pytest.raises(UserError) as caught:
        engine.networks.create(overlapping)
    assert caught.value.code == "subnet-taken"
    with pytest.raises(UserError) as caught:
        engine.networks.create(spec)
    assert caught.value.code == "name-taken"
    engine.containers.create(
        ContainerSpec(name, BASE, tags(name), command=["sleep", "9"], network=name, aliases=("dev",))
    )
    engine.containers.start(name)
    with pytest.raises(UserError) as caught:
        engine.networks.remove(name)
    assert caught.value.code == "network-in-use"
    engine.containers.remove(name)
    assert engine.networks.remove(name)
    assert not engine.networks.remove(name)


def test_ports_are_published_on_loopback(engine: Engine, name: str) -> None:
    engine.containers.create(ContainerSpec(name, BASE, tags(name), command=["sleep", "9"], ports=(Port(80),)))
    engine.containers.start(name)
    info = engine.containers.get(name)
    assert info is not None
    (port,) = info.ports
    assert (port.container, port.address, port.protocol) == (80, "127.0.0.1", "tcp")
    assert port.host > 0
    taken = ContainerSpec(f"{name}-2", BASE, tags(name), command=["sleep", "9"], ports=(Port(80, port.host),))
    engine.containers.create(taken)
    with pytest.raises(UserError) as caught:
        engine.containers.start(f"{name}-2")
    assert caught.value.code == "port-taken"


@pytest.mark.parametrize(
    ("act", "code", "names"),
    [
        (lambda e, n: e.containers.create(ContainerSpec(n, "cst-none:1", {})), "image-missing", "cst-none:1"),
        (lambda e, n: e.containers.start(n), "container-missing", "{n}"),
        (lambda e, n: e.containers.execs.run(n, ["true"]), "container-missing", "{n}"),
        (lambda e, n: e.containers.logs(n), "container-missing", "{n}"),
        (lambda e, n: e.containers.put(n, "/", b""), "container-missing", "{n}"),
        (
            lambda e, n: (
                e.containers.create(ContainerSpec(n, BASE, {PROJECT: n}, command=["true"], network=f"{n}-no"))
                and e.containers.start(n)
            ),
            "network-missing",
            "{n}-no",
        ),
        (
            lambda e, n: (
                e.containers.create(ContainerSpec(n, BASE, {PROJECT: n}, command=["cst-no-such"], network="none"))
                and e.containers.start(n)
            ),
            "command-missing",
            "cst-no-such",
        ),
    ],
)
def test_what_is_missing_is_named(engine: Engine, name: str, act: object, code: str, names: str) -> None:
    with pytest.raises(UserError) as caught:
        act(engine, name)  # type: ignore[operator]
    assert caught.value.code == code
    assert names.format(n=name) in caught.value.message


def test_a_stopped_container_runs_no_commands(engine: Engine, box: str) -> None:
    engine.containers.stop(box, 0)
    with pytest.raises(UserError) as caught:
        engine.containers.execs.run(box, ["true"])
    assert caught.value.code == "not-running"


def test_volumes(engine: Engine, name: str) -> None:
    assert engine.volumes.get(name) is None
    assert engine.volumes.create(name, tags(name)).labels[PROJECT] == name
    assert [v.name for v in engine.volumes.list({PROJECT: name})] == [name]
    engine.containers.create(
        ContainerSpec(name, BASE, tags(name), command=["true"], network="none", mounts=(Mount("/v", name),))
    )
    with pytest.raises(UserError) as caught:
        engine.volumes.remove(name)
    assert caught.value.code == "volume-in-use"
    engine.containers.remove(name)
    assert engine.volumes.remove(name)
    assert not engine.volumes.remove(name)


def test_one_engine_serves_several_threads(engine: Engine, box: str) -> None:
    said: list[bytes] = []

    def run(number: int) -> None:
        said.append(engine.containers.execs.run(box, ["echo", str(number)]).stdout)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(said) == [f"{n}\n".encode() for n in range(8)]


def test_logs_are_read_and_followed(engine: Engine, name: str) -> None:
    command = ["sh", "-c", "echo one; echo two; echo three"]
    engine.containers.create(ContainerSpec(name, BASE, tags(name), command=command, network="none"))
    engine.containers.start(name)
    assert b"".join(engine.containers.follow(name)).split()[0] == b"one"
    assert engine.containers.wait(name, 10) == 0
    assert engine.containers.logs(name, 1) == "three\n"
