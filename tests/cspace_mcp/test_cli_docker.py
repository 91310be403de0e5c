"""The command line over a real Docker engine, in a lab."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from checkouts import CSPACE, ONLY, SECONDS, Checkout

from netpolicy.errors import Exit

pytestmark = pytest.mark.docker


@pytest.mark.requirement("I1")
@pytest.mark.requirement("I8")
def test_an_instance_from_up_to_down(checkout: Checkout) -> None:
    told = checkout.cspace("up", "--no-claude")
    assert [line.split()[0] for line in told.text.splitlines() if line and not line.startswith(" ")] == [
        "instance", "branch", "firewall", "blocked", "reachable", "network", "state", "next",
    ]  # fmt: skip
    assert f"mercury of {checkout.root.name}" in told.text
    assert "example.com  dns-denied in " in told.text
    assert "https://api.github.com/zen  reached in " in told.text
    assert "cspace ssh mercury" in told.text
    assert b"verifying the firewall" in told.stderr

    listed = checkout.json("list")["instances"]
    assert [(i["name"], i["state"], i["branch"]) for i in listed] == [("mercury", "ready", "main")]
    assert listed[0]["verification"]["state"] == "verified"
    assert checkout.cspace("list", "--names").text == "mercury"

    ran = checkout.cspace(
        "exec", "mercury", "--", "sh", "-c", "cat; pwd; id -un; echo err >&2; exit 7", stdin=b"in\n", ok=(7,)
    )
    assert (ran.stdout, ran.stderr) == (b"in\n/workspace\ndev\n", b"err\n")
    assert checkout.cspace("exec", "mercury", "echo", "--", "-n", "--help").text == "-- -n --help"
    assert checkout.cspace("exec", "mercury", "--", "git", "remote", "get-url", "origin").text.endswith(
        "/team/shop.git"
    )

    checkout.cspace("exec", "mercury", "--", "sh", "-c", "echo work > notes.md")
    refused = checkout.json("down", "mercury", ok=(Exit.CONFLICT,))
    assert refused["error"]["code"] == "unsaved-work"
    assert "notes.md" in refused["error"]["message"]
    gone = checkout.json("down", "mercury", "--force")
    assert gone["lost"]["files"] == ["notes.md"]
    assert checkout.left() == []


def test_up_again_changes_nothing_and_says_the_same(checkout: Checkout) -> None:
    first = checkout.json("up", "mars")
    checkout.cspace("exec", "mars", "--", "sh", "-c", "echo work > notes.md")
    again = checkout.json("up", "mars")
    assert (again["container"], again["created"], again["subnets"]) == (
        first["container"],
        first["created"],
        first["subnets"],
    )
    assert checkout.cspace("exec", "mars", "--", "cat", "notes.md").text == "work"
    assert checkout.cspace("up", "mars", "--quiet").stderr == b""


@pytest.mark.requirement("F10")
def test_strict_makes_a_degraded_state_a_failure(checkout: Checkout) -> None:
    checkout.configure(firewall={**ONLY, "domains": ["api.github.com", "nowhere.example"]})
    made = checkout.json("up", "--strict", ok=(Exit.DENIED,))
    assert made["state"] == "degraded"
    assert "nowhere.example" in made["reasons"][0]


@pytest.mark.requirement("F7")
def test_a_firewall_that_is_off_is_said_everywhere(checkout: Checkout) -> None:
    checkout.configure(firewall={"enabled": False})
    assert "OFF: everything may leave" in checkout.cspace("up", "--no-claude").text
    assert "OFF: everything may leave" in checkout.cspace("list").text
    assert checkout.json("list")["instances"][0]["firewall"]["state"] == "off"


@pytest.mark.requirement("F7")
def test_a_firewall_that_only_observes_is_said_everywhere(checkout: Checkout) -> None:
    site = checkout.machine.lab.site()
    checkout.configure(firewall={**ONLY, "mode": "observe"})
    talk = ("curl", "-sS", "--max-time", "5", "-o", "/dev/null", f"http://{site.v4}:8080/")
    up = checkout.cspace("up", "--no-claude").text
    assert "OBSERVED ONLY: everything may leave" in up
    checkout.cspace("exec", "mercury", "--", *talk)
    assert checkout.machine.lab.receiver.arrived(site.v4, 8080)
    assert "packets would have been refused" in checkout.cspace("list").text
    assert "the firewall only OBSERVES" in checkout.cspace("list").text
    (line,) = [check for check in checkout.json("doctor")["checks"] if check["name"] == "instances"]
    assert (line["state"], "only OBSERVES" in line["message"]) == ("warning", True)
    (listed,) = checkout.json("list")["instances"]
    assert (listed["firewall"]["state"], listed["firewall"]["refused"] >= 1) == ("observed", True)
    checkout.machine.lab.receiver.forget()
    checkout.configure(firewall=ONLY)
    assert "enforced, 1 names" in checkout.cspace("up", "--no-claude", "mercury").text
    status = checkout.cspace("exec", "mercury", "--", *talk, ok=range(256)).status
    assert not checkout.machine.lab.receiver.arrived(site.v4, 8080)
    assert status == 7, "curl could not connect"


@pytest.mark.requirement("F6")
def test_a_policy_of_everything_the_language_has_works_in_an_instance(checkout: Checkout) -> None:
    lab = checkout.machine.lab
    good, bad, browsers = (lab.site(f"{name}.wild.example") for name in ("good", "bad", "browsers"))
    dated, other = lab.site(), lab.site()
    allow = [
        "*.wild.example",
        {"host": dated.name, "expires": "2099-01-31", "reason": "until the migration is done"},
        {"host": other.name, "expires": "2001-01-31"},
        {"host": f"{browsers.v4}", "ports": ["8080/tcp"], "roles": ["browser"]},
    ]
    checkout.configure(
        firewall={**ONLY, "allow": allow, "deny": ["bad.wild.example"], "ipv6": False, "on_drift": "lock"}
    )
    up = checkout.cspace("up", "--no-claude").text
    assert "the next rule ends 2099-02-01 00:00 UTC" in up
    assert "degraded" in up, "a rule that has ended is left out with a warning"
    (listed,) = checkout.json("list")["instances"]
    assert listed["firewall"]["ends_at"] == "2099-02-01T00:00:00+00:00"
    fetch = ("curl", "-sS", "--max-time", "5", "-o", "/dev/null")
    reached = {
        target: checkout.cspace("exec", "mercury", "--", *fetch, target, ok=range(256)).status == 0
        for target in (
            f"http://{good.name}/", f"http://{dated.name}/", f"http://{bad.name}/", f"http://{other.name}/",
            f"http://{browsers.v4}:8080/", f"http://[{good.v6}]/",
        )
    }  # fmt: skip
    assert list(reached.values()) == [True, True, False, False, False, False], reached
    for site in (good, dated):
        assert lab.receiver.arrived(site.v4, 80)
    for site in (bad, other, browsers):
        assert not lab.receiver.arrived(site.v4)
    assert not lab.receiver.arrived(good.v6)


def test_the_keys_of_container_have_their_effects(checkout: Checkout) -> None:
    container = {"environment": {"GREETING": "hello"}, "memory": "1g", "cpus": 0.5, "pids": 200}
    checkout.configure(firewall=ONLY, container=container)
    name = checkout.json("up")["container"]
    assert checkout.cspace("exec", "mercury", "--", "printenv", "GREETING").text == "hello"
    limits = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"
    assert checkout.machine.host.docker("inspect", "--format", limits, name) == f"{1 << 30} 500000000 200"


def test_the_keys_of_gate_have_their_effects(checkout: Checkout) -> None:
    upstream = "203.0.113.99"
    checkout.configure(firewall=ONLY, gate={"pool": ["10.99.0.0/24", "fd99::/48"], "upstream": [upstream]})
    made = checkout.json("up")
    assert made["state"] == "ready"
    assert made["subnets"][0].startswith("10.99.0.")
    assert made["subnets"][1].startswith("fd99:")
    assert checkout.machine.lab.dns.queries("api.github.com", server=upstream)


@pytest.mark.requirement("F6")
def test_another_policy_and_the_environment(checkout: Checkout) -> None:
    (checkout.root / "other.json").write_text('{"presets": {}, "domains": ["one.example"]}')
    checkout.machine.lab.site("two.example")
    made = checkout.cspace("up", "--policy", "other.json", "--json", CSPACE_FIREWALL_DOMAINS="two.example").text
    assert '"policy": "other.json"' in made
    assert checkout.cspace("exec", "mercury", "--", "getent", "hosts", "two.example").text


def test_a_name_that_another_checkout_has_is_taken(checkout: Checkout, tmp_path: Path) -> None:
    checkout.json("up", "mars")
    (tmp_path / "elsewhere").mkdir()
    other = Checkout(checkout.machine, tmp_path / "elsewhere" / checkout.root.name, checkout.environ)
    checkout.git("clone", "-q", str(checkout.root), str(other.root))
    refused = other.json("up", "mars", ok=(Exit.CONFLICT,))
    assert refused["error"]["code"] == "name-taken"
    assert "it belongs to the checkout" in refused["error"]["message"]
    assert [i["name"] for i in checkout.json("list")["instances"]] == ["mars"]


def test_two_at_once_never_share(checkout: Checkout) -> None:
    words = [*CSPACE, "up", "--no-claude", "--json"]
    both = [
        subprocess.Popen(
            words, cwd=checkout.root, env=checkout.variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in both:
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
    listed = checkout.json("list")["instances"]
    assert [i["name"] for i in listed] == ["mercury", "venus"]
    assert not set(listed[0]["subnets"]) & set(listed[1]["subnets"])


@pytest.mark.parametrize(
    ("word", "number"),
    [(b"starting the container", signal.SIGINT), (b"verifying", signal.SIGTERM)],
    ids=["early", "late"],
)
def test_an_interrupted_up_leaves_nothing(checkout: Checkout, word: bytes, number: signal.Signals) -> None:
    words = [*CSPACE, "up", "--no-claude"]
    with subprocess.Popen(words, cwd=checkout.root, env=checkout.variables(), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if word in line:
                process.send_signal(number)
        assert process.wait(SECONDS) == 128 + number
    assert checkout.left() == []
    assert checkout.json("list") == {"instances": []}
    assert checkout.json("up")["state"] == "ready"


def on_a_terminal(checkout: Checkout, *words: str, typed: bytes = b"", after: bytes = b"") -> tuple[int, str]:
    """Run our program on a terminal of 100 columns and 30 rows; its status and everything that was on the screen.

    What is typed is typed as soon as `after` is on the screen: a program that sets its terminal up may lose what came before.
    """
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    environ = {**checkout.variables(), "TERM": "xterm"}
    with subprocess.Popen(
        [*CSPACE, *words], cwd=checkout.root, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        screen = b""
        try:
            while True:
                if typed and after in screen:
                    os.write(ours, typed)
                    typed = b""
                part = os.read(ours, 65536)
                if not part:
                    break
                screen += part
        except OSError:
            # The terminal's last user has gone.
            pass
        status = process.wait(SECONDS)
    os.close(ours)
    return status, screen.decode()


@pytest.mark.requirement("I6")
def test_on_a_terminal_up_ends_in_claude_code(checkout: Checkout) -> None:
    # Another program of that name, so that the test needs nothing outside.
    checkout.commit(
        "bin/claude",
        # Engines before 23.0 give a terminal its size just after the program has started.
        '#!/bin/sh\nwhile [ "$(stty size)" = "0 0" ]; do :; done\n'
        "echo this is claude on $(tty) with $(stty size)\nread word\necho read $word\nexit 9\n",
        0o755,
    )
    checkout.configure(
        firewall=ONLY, container={"environment": {"PATH": "/workspace/bin:/usr/local/bin:/usr/bin:/bin"}}
    )
    status, screen = on_a_terminal(checkout, "up", typed=b"something\n", after=b"this is claude")
    assert status == 9
    assert "cspace ssh mercury" in screen
    assert "this is claude on /dev/pts/0 with 30 100" in screen
    assert "read something" in screen
    status, screen = on_a_terminal(checkout, "up", "mercury", "--no-claude")
    assert status == 0
    assert "this is claude" not in screen


def test_a_shell_on_a_terminal(checkout: Checkout) -> None:
    checkout.cspace("up", "--no-claude")
    status, screen = on_a_terminal(
        checkout, "ssh", "mercury", after=b"$ ", typed=b"pwd\ntest -t 0 && echo a $((6*7)) terminal\nexit 5\n"
    )
    assert status == 5
    assert "/workspace" in screen
    assert "a 42 terminal" in screen


def test_doctor_finds_nothing_wrong(checkout: Checkout, tmp_path: Path) -> None:
    checkout.cspace("up", "--no-claude")
    found = checkout.json("doctor")
    assert found["healthy"], found
    assert [check["name"] for check in found["checks"]] == [
        "configuration", "repository", "docker engine", "images", "gate", "host", "instances",
    ]  # fmt: skip
    assert " by nftables, guards 1 of its networks" in found["checks"][4]["message"]
    checkout.configure(firewall={"domain": []})
    found = checkout.json("doctor", ok=(Exit.FAILED,))
    assert [check["name"] for check in found["checks"] if check["state"] == "failed"] == ["configuration"]
    checkout.configure(firewall=ONLY)


def test_images_that_are_right_are_left_alone(checkout: Checkout) -> None:
    found = checkout.json("image", "build")["images"]
    assert [(image["name"], image["built"]) for image in found] == [
        ("cspace-instance:latest", False),
        ("cspace-gate:latest", False),
    ]


def test_an_engine_that_is_there_is_found(checkout: Checkout) -> None:
    found = checkout.json("engine", "install")
    assert (found["address"], found["actions"]) == (checkout.machine.host.url, [])
