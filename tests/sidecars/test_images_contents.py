"""What is in our two images. They are built on the machine's engine, where they are missing or out of date, under their real names."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from engine_things import fresh, remove

from sidecars import images
from sidecars.engine import PROJECT, VERSION, ContainerSpec, Engine, ImageInfo
from sidecars.images import GATE, INSTANCE
from sidecars.images.certificates import host_certificates
from sidecars.images.recipe import our_version
from sidecars.install import ensure_engine

pytestmark = [pytest.mark.docker, pytest.mark.requirement("I5")]

Run = Callable[..., str]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with ensure_engine().engine as engine:
        yield engine


@pytest.fixture(scope="module")
def made(engine: Engine) -> tuple[ImageInfo, ImageInfo]:
    return images.ensure_all(engine)


@pytest.fixture(scope="module")
def box(engine: Engine, made: tuple[ImageInfo, ImageInfo]) -> Iterator[Run]:
    """Runs commands in a container of the instance's image that has no network at all."""
    name = fresh(engine)
    engine.containers.create(ContainerSpec(name, made[0].id, {PROJECT: name}, network="none", init=True))
    engine.containers.start(name)

    def run(*argv: str, user: str | None = None, ok: tuple[int, ...] = (0,)) -> str:
        return engine.containers.execs.run(name, argv, user=user, ok=ok).text

    yield run
    remove(engine, name)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("claude", "--version"), "2.1.329"),
        (("git", "--version"), "git version"),
        (("gh", "--version"), "gh version"),
        (("rg", "--version"), "ripgrep"),
        (("jq", "--version"), "jq-"),
        (("make", "--version"), "GNU Make"),
        (("node", "--version"), "v"),
        (("npm", "--version"), "11."),
        (("pnpm", "--version"), "10."),
        (("python3", "--version"), "Python 3."),
        (("curl", "--version"), "curl "),
        (("netpolicy", "--version"), f"netpolicy {our_version()}"),
        (("cspace", "--version"), f"cspace {our_version()}"),
        (("sh", "-c", "dig -v 2>&1"), "DiG"),
        (("sh", "-c", "ssh -V 2>&1"), "OpenSSH"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_tools_are_there(box: Run, argv: tuple[str, ...], said: str) -> None:
    assert said in box(*argv)


def test_git_speaks_https(box: Run) -> None:
    assert "remote-https" in box("sh", "-c", "ls $(git --exec-path)")


def test_dev_is_an_ordinary_user_without_password(box: Run) -> None:
    assert box("id") == "uid=1000(dev) gid=1000(dev) groups=1000(dev)"
    assert box("pwd") == "/workspace"
    assert box("sh", "-c", "touch /workspace/x ~/.claude/x ~/.config/gh/x ~/.local/bin/x && echo written") == "written"
    assert box("sh", "-c", "command -v sudo docker dockerd podman || echo none") == "none"
    assert box("sh", "-c", "grep -E '^(root|dev):' /etc/shadow | cut -d: -f2 | sort -u", user="root") in (
        "!\n*",
        "!",
        "*",
    )
    # Nothing that becomes root but what Debian itself brings, and new privileges are forbidden to instances anyway.
    special = box("find", "/usr", "/opt", "-xdev", "-perm", "-4000", user="root").split()
    assert {path.rpartition("/")[2] for path in special} <= {
        "chfn", "chsh", "gpasswd", "mount", "newgrp", "passwd", "su", "umount", "ssh-keysign",
    }  # fmt: skip


def test_what_dev_installs_lands_where_dev_may_write(box: Run) -> None:
    assert box("npm", "config", "get", "prefix") == "/home/dev/.local"
    assert box("npm", "--logs-max=0", "config", "get", "prefix", user="root") == "/usr/local"
    assert box("sh", "-c", "echo $PATH").startswith("/home/dev/.local/bin:")


def test_our_programs_work_without_a_network(box: Run) -> None:
    assert (
        box("/opt/cspace/venv/bin/python", "-c", "import importlib.metadata as m; print(m.version('cspace'))")
        == our_version()
    )
    assert "denied" in box("netpolicy", "check", "no.example", ok=(1,)).lower()
    assert "cspace" in box("cspace", "--help")


def test_this_hosts_certificates_are_trusted_by_everything(box: Run) -> None:
    for certificate in host_certificates():
        body = certificate.pem.decode().splitlines()[1]
        assert box("grep", "-c", body, "/etc/ssl/certs/ca-certificates.crt") == "1"
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        assert box("printenv", name) == bundle
    assert int(box("grep", "-c", "BEGIN CERTIFICATE", bundle)) > 100


def test_nothing_of_the_build_is_left(box: Run) -> None:
    assert (
        box(
            "sh",
            "-c",
            "ls -A /tmp /root/.npm /root/.claude* /var/lib/apt/lists 2>/dev/null | grep -v :",
            user="root",
            ok=(0, 1),
        ).strip()
        == ""
    )
    assert box("sh", "-c", "find / -xdev -name '*.tgz' -size +100k 2>/dev/null", user="root", ok=(0, 1)) == ""


def test_its_first_process_is_cheap_and_ends_at_once(engine: Engine, made: tuple[ImageInfo, ImageInfo]) -> None:
    name = fresh(engine)
    engine.containers.create(ContainerSpec(name, made[0].id, {PROJECT: name}, network="none", init=True))
    try:
        engine.containers.start(name)
        assert engine.containers.execs.run(name, ["sh", "-c", "cat /proc/[0-9]*/comm | sort"]).text.split()[:3] == [
            "cat",
            "docker-init",
            "sh",
        ]
        engine.containers.stop(name, 10)
        info = engine.containers.get(name)
        assert info is not None
        # By the signal, not by the kill that follows ten seconds later.
        assert info.exit_code == 143
    finally:
        engine.containers.remove(name)


def test_the_gates_image_holds_netpolicy_alone(engine: Engine, made: tuple[ImageInfo, ImageInfo]) -> None:
    gate = made[1]
    assert gate.size < made[0].size / 3
    script = (
        "netpolicy --version; python3 -c 'import dns, pyroute2, netpolicy; print(\"imports\")'; "
        "command -v pip pip3 curl git node apt-key sudo docker || echo lean; "
        "python3 -c 'import sidecars' 2>/dev/null || echo alone"
    )
    name = fresh(engine)
    engine.containers.create(
        ContainerSpec(name, gate.id, {PROJECT: name}, command=["sh", "-c", script], network="none", read_only=True)
    )
    try:
        engine.containers.start(name)
        assert engine.containers.wait(name, 30) == 0
        said = engine.containers.logs(name).split("\n")
    finally:
        engine.containers.remove(name)
    assert said[:4] == [f"netpolicy {our_version()}", "imports", "lean", "alone"]


def test_they_are_labelled_and_not_built_again(engine: Engine, made: tuple[ImageInfo, ImageInfo]) -> None:
    assert {image.labels[VERSION] for image in made} == {our_version()}
    assert [engine.images.get(recipe.name) for recipe in (INSTANCE, GATE)] == list(made)


def test_a_change_of_our_sources_downloads_nothing_again(engine: Engine, made: tuple[ImageInfo, ImageInfo]) -> None:
    context = images.context.collect(INSTANCE, host_certificates())
    changed = images.context.Context(
        {**context.files, "cspace/netpolicy/changed.py": f"# {secrets.token_hex(8)}".encode()}
    )
    name = fresh(engine)
    said = ""
    try:
        for message in engine.images.build(changed.archive(), f"{name}:latest", labels={PROJECT: name}):
            said += str((message or {}).get("stream", ""))
        before, _, after = said.partition("COPY cspace/")
        assert before.count("Using cache") >= 10
        assert "Running in" not in before.partition("Step 2/")[2]
        assert "Running in" in after
    finally:
        engine.images.remove(f"{name}:latest", force=True)
