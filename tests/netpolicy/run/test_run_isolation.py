"""What the command cannot do: leave its namespace, change the firewall, look into the processes that hold it."""

from __future__ import annotations

import json
import secrets
import shlex
from pathlib import Path

import pytest
from running import ROOT, USER, Form, Runner

from netpolicy.lab import Lab, Site

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("form", [ROOT, USER], ids=str)


ATTEMPTS = (
    "ip link set eth0 down",
    "ip link add other type veth",
    "ip route replace default dev lo",
    "ip addr add 198.51.100.9/32 dev eth0",
    "nft add table inet mine",
    "iptables -P OUTPUT ACCEPT",
    "nsenter --net=/proc/1/ns/net ip link set eth0 down",
    "nsenter --target 1 --mount true",
    "unshare --net true",
    "mount -t tmpfs none /mnt",
    "umount /etc/resolv.conf",
    "umount /proc",
    "sysctl -w net.ipv4.ip_forward=1",
    "sysctl -w kernel.core_pattern=core",
    "sh -c 'echo 0 > /proc/sysrq-trigger'",
    "modprobe dummy",
    "cat /proc/1/environ",
    "cat /proc/1/mem",
    "sh -c 'kill -9 1; sleep 0.05; false'",  # the first process ignores it; if it did not, we would not go on
    "unshare --user --map-root-user nsenter --net=/proc/1/ns/net true",
    "unshare --user --map-root-user ip link set eth0 down",
    "unshare --user --map-root-user --mount umount /etc/resolv.conf",
)


@BOTH
def test_attempts_to_change_or_leave_fail(lab: Lab, form: Form, allowed: Site) -> None:
    script = "".join(f"{attempt} >/dev/null 2>&1 && echo DONE: {shlex.quote(attempt)}\n" for attempt in ATTEMPTS)
    talk = "timeout 5 bash -c 'exec 3<>/dev/tcp/allowed.example/22; echo; head -1 <&3'"
    runner = Runner(lab, form, {"domains": ["allowed.example"]})
    done = runner.run("sh", "-c", f"{script}\ncat /etc/resolv.conf; {talk}").text.splitlines()
    assert not [line for line in done if line.startswith("DONE")]
    assert done[0].startswith("# by 'netpolicy run'"), "and it went on as before"
    assert done[-1].startswith("netpolicy-lab tcp ")


def test_what_is_tried_there_works_where_nobody_prevents_it(lab: Lab) -> None:
    """The control of the attempts above: programs are there, and root outside of `netpolicy run` succeeds."""
    box = lab.add_workload()
    for attempt in (
        "nft add table inet mine",
        "ip link set eth0 down",
        "unshare --net true",
        "mount -t tmpfs none /mnt",
    ):
        assert box.run(["sh", "-c", attempt]).status == 0


@BOTH
def test_capabilities_are_gone_for_good(lab: Lab, form: Form) -> None:
    words = ["sh", "-c", "grep -E '^(Cap|NoNewPrivs)' /proc/self/status; id -u"]
    lines = dict(line.split(":") for line in Runner(lab, form).run(*words).text.splitlines() if ":" in line)
    kept = int(lines["CapBnd"], 16)
    dangerous = {"net_admin": 12, "net_raw": 13, "sys_module": 16, "sys_rawio": 17, "sys_ptrace": 19, "sys_admin": 21,
                 "sys_boot": 22, "sys_time": 25, "mknod": 27, "mac_admin": 33, "perfmon": 38, "bpf": 39}  # fmt: skip
    assert not [name for name, number in dangerous.items() if kept >> number & 1]
    assert lines["NoNewPrivs"].strip() == "1"
    assert int(lines["CapInh"], 16) == int(lines["CapAmb"], 16) == 0
    if form == USER:
        assert kept == 0


def test_the_user_is_who_they_were(lab: Lab) -> None:
    assert Runner(lab, USER).run("sh", "-c", "id -u; id -g").text.split() == [str(USER.user)] * 2


def test_root_can_hand_the_command_to_another_user(lab: Lab) -> None:
    script = "id -u; id -g; echo $HOME; grep CapPrm /proc/self/status"
    uid, gid, home, *capabilities = Runner(lab).run("sh", "-c", script, options=["--user", "nobody"]).text.split()
    assert (uid, home) == ("65534", "/nonexistent")
    assert gid == "65534"
    assert int(capabilities[1], 16) == 0
    assert Runner(lab).run("id", "-u", options=["--user", "4321"]).text == "4321"


@pytest.mark.parametrize(
    ("form", "name", "status", "words"),
    [
        (ROOT, "nosuchuser", 2, "there is no user 'nosuchuser'"),
        (USER, "root", 3, "only root may ask to run the command as another user"),
    ],
    ids=str,
)
def test_users_that_cannot_be(lab: Lab, form: Form, name: str, status: int, words: str) -> None:
    done = Runner(lab, form).run("true", options=["--user", name])
    assert (done.status, words in done.stderr.decode()) == (status, True)


def test_the_files_of_other_resolvers_are_hidden(lab: Lab, tmp_path: Path) -> None:
    """nss-resolve and nscd would ask from outside of the namespace, by a socket in the file system."""
    script = (
        "mount -t tmpfs none /run && mkdir -p /run/systemd/resolve /run/nscd && touch /run/nscd/socket "
        "/run/systemd/resolve/io.systemd.Resolve && echo 'nameserver 192.0.2.53' > /run/systemd/resolve/stub.conf "
        "&& mount --bind /run/systemd/resolve/stub.conf /etc/resolv.conf && "
    )
    look = "ls -A /run/systemd/resolve /run/nscd; cat /etc/resolv.conf"
    own = " ".join(f"'{word}'" for word in Runner(lab).argv(["sh", "-c", look]))
    text = lab.host.run(["sh", "-c", script + own]).text
    assert "io.systemd.Resolve" not in text
    assert "socket" not in text
    assert "# by 'netpolicy run'" in text


def test_the_report_and_the_summary_say_what_to_add(lab: Lab, tmp_path: Path) -> None:
    site = lab.site("allowed.example")
    path = lab.directory / "report.json"
    script = (
        "for i in 1 2; do getent hosts denied.example; done; getent hosts allowed.example >/dev/null;"
        " timeout 3 bash -c 'echo > /dev/tcp/192.0.2.99/80'; printf 'x' > /dev/udp/192.0.2.99/9;"
        f" timeout 3 bash -c 'echo > /dev/tcp/{site.v4}/8080'; exit 4"
    )
    runner = Runner(lab, ROOT, {"domains": ["allowed.example", "gone.example"]})
    done = runner.run("bash", "-c", script, options=["--json-report", str(path)])
    assert done.status == 4
    report = json.loads(path.read_text())
    assert report["status"] == 4
    assert report["command"][0] == "bash"
    assert report["uplink"] == {"kind": "host", "reach": "IPv4 and IPv6"}
    assert report["refused_packets"] >= 2
    assert report["backend"] == "nftables"
    rows = {(row["address"], row["protocol"], row["port"]): row for row in report["refused"]}
    assert set(rows) == {("192.0.2.99", "tcp", 80), ("192.0.2.99", "udp", 9), (site.v4, "tcp", 8080)}
    assert rows["192.0.2.99", "tcp", 80]["add"] == ["192.0.2.99:80/tcp"]
    assert rows[site.v4, "tcp", 8080]["names"] == ["allowed.example"]
    assert rows[site.v4, "tcp", 8080]["add"] == ["allowed.example:8080/tcp"]
    assert sum(row["packets"] for row in rows.values()) == report["refused_packets"]
    assert [row["name"] for row in report["denied_names"]] == ["denied.example"]
    assert report["denied_names"][0]["times"] >= 2
    assert report["unresolved"] == ["gone.example"]
    summary = done.stderr.decode()
    assert f"{report['refused_packets']} packets refused" in summary
    assert f"to allow one add it to domains in {lab.directory / 'policy.json'}:" in summary
    assert "netpolicy run:     denied.example  (" in summary
    assert f"to allow one add it to allow in {lab.directory / 'policy.json'}:" in summary
    assert f"netpolicy run:     allowed.example:8080/tcp  (1 packet to {site.v4}:8080/tcp)" in summary
    assert "allowed names that did not resolve: gone.example" in summary


def test_several_policies_count_together(lab: Lab, allowed: Site) -> None:
    """What one of them denies is denied, in whichever order they are named."""
    denials = lab.directory / "denials.json"
    denials.write_text(json.dumps({"deny": ["allowed.example"]}))
    ask = ("getent", "hosts", "allowed.example")
    runner = Runner(lab, ROOT, {"domains": ["allowed.example"]})
    assert runner.run(*ask).status == 0
    done = runner.run(*ask, options=["--policy", str(denials)])
    assert done.status == 2
    assert f"denied by allowed.example ({denials}, deny[0])" in done.stderr.decode()


@BOTH
def test_an_observed_policy_refuses_nothing_and_says_what_it_would_have(lab: Lab, form: Form, allowed: Site) -> None:
    other, marks = lab.site("other.example"), [secrets.token_hex(8) for _ in range(2)]
    path = lab.directory / "report.json"
    script = 'say() { timeout 5 bash -c "exec 3<>/dev/tcp/$1/$2; echo $3 >&3; head -1 <&3 >/dev/null"; }; '
    script += f"say other.example 8080 {marks[0]}; say {other.v4} 8081 {marks[1]}; true"
    runner = Runner(lab, form, {"domains": ["allowed.example"]})
    path.touch()
    path.chmod(0o666)
    refusing = runner.run("bash", "-c", script)
    assert not any(lab.receiver.saw(mark) for mark in marks), "the same policy enforced is the control"
    assert b"would have been" not in refusing.stderr
    done = runner.run("bash", "-c", script, options=["--mode", "observe", "--json-report", str(path)])
    assert all(lab.receiver.saw(mark) for mark in marks)
    report = json.loads(path.read_text())
    assert report["phase"] == "observed"
    assert [row["name"] for row in report["denied_names"]] == ["other.example"]
    assert {(row["address"], row["port"]) for row in report["refused"]} >= {(other.v4, 8081)}
    summary = done.stderr.decode()
    assert "was only observed, and nothing refused; what follows would have been" in summary
    assert f"netpolicy run:     {other.v4}:8081/tcp  (" in summary


def test_another_role_has_rules_of_its_own(lab: Lab, allowed: Site) -> None:
    policy = {"allow": [{"host": "allowed.example", "ports": ["22/tcp"], "roles": ["browser"]}]}
    ask = ["getent", "hosts", "allowed.example"]
    assert Runner(lab, ROOT, policy).run(*ask).status == 2
    assert Runner(lab, ROOT, policy).run(*ask, options=["--role", "browser"]).status == 0


def test_there_is_a_report_only_where_the_command_ran(lab: Lab) -> None:
    fresh, old = lab.directory / "fresh.json", lab.directory / "old.json"
    old.write_text("a longer report of an earlier run" * 100)
    for path in (fresh, old):
        done = Runner(lab).run("no-such-program", options=["--json-report", str(path)])
        assert done.status == 127
    assert not fresh.exists()
    assert old.read_text().startswith("a longer report")
    Runner(lab).run("true", options=["--json-report", str(old)])
    assert json.loads(old.read_text())["status"] == 0


def test_nothing_of_ours_is_open_in_the_command(lab: Lab) -> None:
    for form in (ROOT, USER):
        listed = Runner(lab, form).run("sh", "-c", "ls /proc/$$/fd; env | grep -c -i netpolicy", stdin=b"").text.split()
        assert listed[:-1] == ["0", "1", "2"]


def test_quiet_and_nothing_to_say(lab: Lab) -> None:
    assert Runner(lab).run("true").stderr == b""
    assert Runner(lab).run("getent", "hosts", "denied.example", options=["--quiet"]).stderr == b""


def test_a_policy_that_is_off_is_said(lab: Lab) -> None:
    done = Runner(lab, ROOT, {"enabled": False}).run("true")
    assert b"the policy is switched off" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["run"], 2, "no command"),
        (["run", "--"], 2, "no command"),
        (["run", "--policy", "/nonexistent.json", "--", "true"], 2, "/nonexistent.json"),
        (["run", "--json-report", "/nonexistent/x", "--", "true"], 2, "the report cannot be written"),
        (["run", "--uplink", "carrier-pigeon", "--", "true"], 2, "carrier-pigeon"),
    ],
)
def test_bad_input(words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    from netpolicy.cli import main

    assert main(words) == status
    assert said in capsys.readouterr().err
