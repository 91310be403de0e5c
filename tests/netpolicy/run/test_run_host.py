"""What the root form changes on the host: as little as it needs, and nothing of it stays."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from running import ROOT, USER, Form, Runner, running
from test_run_process import host_traces, wait_until

from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.lab import Lab, Site
from netpolicy.run import hostside, networks, wiring

pytestmark = pytest.mark.kernel

FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
HOLD = ("sh", "-c", "echo up; read x")


def settings(lab: Lab, *keys: str) -> list[str]:
    return lab.host.run(["sysctl", "-n", *keys]).text.split()


def set_forwarding(lab: Lab, value: int) -> None:
    lab.host.run(["sysctl", "-qw", *(f"{key}={value}" for key in FORWARDING)])


def hold(runner: Runner) -> subprocess.Popen[bytes]:
    return runner.popen(*HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) != 137


def test_forwarding_is_switched_on_for_the_run_and_back_after_the_last_one(lab: Lab) -> None:
    set_forwarding(lab, 0)
    lab.host.run(["sysctl", "-qw", "net.ipv6.conf.up0.accept_ra=1"])
    runner = Runner(lab)
    with running(hold(runner)) as first:
        assert settings(lab, *FORWARDING) == ["1", "1"]
        assert settings(lab, "net.ipv6.conf.up0.accept_ra") == ["2"], "a host keeps its advertised default route"
        with running(hold(runner)) as second:
            let_go(first)
            assert settings(lab, *FORWARDING) == ["1", "1"], "another run still needs it"
            second.kill()
            second.wait()
            wait_until(lambda: settings(lab, *FORWARDING) == ["0", "0"])
    assert settings(lab, "net.ipv6.conf.up0.accept_ra") == ["1"]
    wait_until(lambda: not host_traces(lab))


def test_a_host_that_forwards_already_is_left_alone(lab: Lab) -> None:
    before = settings(lab, *FORWARDING, "net.ipv6.conf.up0.accept_ra")
    with running(hold(Runner(lab))) as process:
        assert settings(lab, *FORWARDING, "net.ipv6.conf.up0.accept_ra") == before
        let_go(process)
    assert settings(lab, *FORWARDING, "net.ipv6.conf.up0.accept_ra") == before
    assert not host_traces(lab)


def test_where_docker_drops_what_it_does_not_know(lab: Lab, allowed: Site) -> None:
    def docker_rules(program: str) -> str:
        return lab.host.run([program, "-S"]).text

    for program in ("iptables", "ip6tables"):
        for words in ("-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN", "-P FORWARD DROP"):
            lab.host.run([program, *words.split()])
    before = {program: docker_rules(program) for program in ("iptables", "ip6tables")}
    runner = Runner(lab, ROOT, {"domains": ["allowed.example"]})
    targets = [f"{allowed.v4}:80", f"[{allowed.v6}]:80"]
    assert {r.outcome for r in runner.probe("allowed.example", *targets).values()} == {"reached"}
    assert {program: docker_rules(program) for program in before} == before

    with running(hold(runner)) as process:
        assert docker_rules("iptables") != before["iptables"]
        process.kill()
        process.wait()
    wait_until(lambda: {program: docker_rules(program) for program in before} == before)


def test_where_somebody_else_drops_it_is_said_before_the_command_starts(lab: Lab) -> None:
    lab.host.run(["iptables", "-P", "FORWARD", "DROP"])
    done = Runner(lab).run("echo", "started")
    assert (done.status, done.text) == (4, "")
    assert b"the host drops what it forwards" in done.stderr
    assert b"--uplink pasta" in done.stderr
    assert not host_traces(lab)
    assert Runner(lab, Form(None, "pasta")).run("echo", "started").text == "started"


def test_no_network_of_the_host_is_hidden_from_the_command(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    used = [IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12")]
    monkeypatch.setattr(networks, "routed", lambda: iter(used))
    for _ in range(50):
        assert not any(networks.free_v4().overlaps(network) for network in used)


def test_routes_are_read_from_the_kernels_tables(lab: Lab) -> None:
    assert lab.host.call(lambda: list(networks.routed())) == [IPv4Network("198.51.100.0/30")]
    assert lab.host.call(networks.default_routes) == (True, True)
    box = lab.add_workload()
    assert box.call(networks.default_routes) == (True, True)
    box.run(["ip", "-6", "route", "del", "default"])
    assert box.call(networks.default_routes) == (True, False)


def test_a_host_without_a_way_out_runs_the_command_all_the_same(lab: Lab) -> None:
    for family in ("-4", "-6"):
        lab.host.run(["ip", family, "route", "del", "default"])
    for form in (ROOT, USER):
        done = Runner(lab, form).run("echo", "started")
        assert (done.status, done.text) == (0, "started")
        assert b"the host has no default route" in done.stderr


def test_a_host_with_ipv4_only(lab: Lab, allowed: Site) -> None:
    lab.host.run(["ip", "-6", "route", "del", "default"])
    lab.host.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"])
    for form in (ROOT, USER):
        runner = Runner(lab, form, {"domains": ["allowed.example"]})
        assert runner.probe("allowed.example")["allowed.example"].address == allowed.v4
    assert settings(lab, "net.ipv6.conf.all.forwarding") == ["0"]


def test_the_record_of_a_dead_run_is_undone_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undone: list[dict[str, object]] = []
    monkeypatch.setattr(hostside, "_undo", undone.append)
    registry = hostside.Registry(tmp_path / "run")
    registry.record(table="mine", rules=[])
    (registry.directory / "1-0.json").write_text(json.dumps({"table": "of-a-dead-one"}))
    registry.collect()
    assert undone == [{"table": "of-a-dead-one"}]
    registry.collect(own=True)
    assert undone[1:] == [{"table": "mine", "rules": []}]
    assert not registry.directory.exists()


def test_both_ends_of_a_wire_have_different_numbers(lab: Lab) -> None:
    """Or IPv6 would work only after a second (`wiring.pair`)."""
    one, other = netns.anonymous(), netns.anonymous()
    try:
        with Links(one) as here, Links(other) as there:
            wiring.pair(here, "a", there, "b", other)
            assert here.index("a") != there.index("b")
            assert (sorted(here.names()), sorted(there.names())) == (["a", "lo"], ["b", "lo"])
    finally:
        os.close(one)
        os.close(other)


def test_a_busy_neighbourhood(lab: Lab, allowed: Site) -> None:
    """Several runs at once on one host do not meet."""
    runner = Runner(lab, ROOT, {"domains": ["allowed.example"]})
    words = (
        "sh",
        "-c",
        f"timeout 5 bash -c 'exec 3<>/dev/tcp/allowed.example/22; echo {secrets.token_hex(2)}; head -1 <&3'",
    )
    processes = [runner.popen(*words, stdout=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert b"netpolicy-lab tcp" in output
    wait_until(lambda: not host_traces(lab))
