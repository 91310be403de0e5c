"""What a command behind `netpolicy run` reaches: judged where packets arrive, in every form, for both families."""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import replace

import pytest
from running import ROOT, USER, Form, Runner, processes_with

from netpolicy.lab import Lab, Site

pytestmark = pytest.mark.kernel


def nonce() -> str:
    return f"n{secrets.token_hex(8)}"


@pytest.mark.requirement("F1")
def test_an_allowed_name_is_reached_and_nothing_else(lab: Lab, form: Form, allowed: Site) -> None:
    """The control is the same command by the same way with the policy switched off: then every one of these arrives."""
    denied = lab.site("denied.example")
    reachable = ["allowed.example:80", f"{allowed.v4}:443", f"[{allowed.v6}]:443"]
    refused = [
        "denied.example:80",
        *(f"{denied.v4}:443", f"[{denied.v6}]:443"),
        *(f"{allowed.v4}:8443", f"[{allowed.v6}]:8443"),
        *(f"{allowed.v4}:443/udp", f"[{allowed.v6}]:443/udp"),
        *(f"{allowed.v4}/icmp", f"{allowed.v6}/icmp"),
        *(f"{denied.v4}:9/udp", f"{denied.v6}/icmp"),
        *("203.0.113.53:853", "[2001:db8:53::54]:853"),
        *("169.254.169.254:80", "[fd00:ec2::254]:80", "10.20.30.40:443"),
    ]
    runner = Runner(lab, form, {"domains": ["allowed.example"]})

    found = runner.probe(*reachable, *refused)
    assert {t: found[t].outcome for t in reachable} == dict.fromkeys(reachable, "reached")
    assert {t: r.outcome for t, r in found.items() if t in refused} == {
        "denied.example:80": "dns-denied",
        **dict.fromkeys(refused[1:], "refused"),
    }
    assert all(found[t].milliseconds < 1000 for t in refused)
    for address in (*denied.addresses, "203.0.113.53", "2001:db8:53::54", "169.254.169.254", "10.20.30.40"):
        assert not lab.receiver.arrived(address), "it says refused, but a packet got out"
    for address in allowed.addresses:
        assert {p.port for p in lab.receiver.arrived(address)} <= {80, 443}
        assert {p.protocol for p in lab.receiver.arrived(address)} == {6}
    assert not lab.dns.queries("denied.example"), "a denied name was asked for outside"

    off = replace(runner, policy={"enabled": False}).probe(*reachable, *refused)
    if form.uplink == "slirp4netns":
        # It carries no ICMPv6, so that refusal has its proof in the other forms only.
        off = {t: r for t, r in off.items() if not (":" in t and t.endswith("/icmp"))}
    assert {t: r.outcome for t, r in off.items()} == dict.fromkeys(off, "reached")
    assert lab.receiver.arrived(denied.v4, 443)
    assert lab.receiver.arrived(denied.v6, 443)


def test_another_resolver_is_answered_by_the_gate_and_never_asked(lab: Lab, form: Form) -> None:
    label = nonce()
    targets = [f"{address}:53/{p}" for address in ("8.8.8.8", "[2001:4860:4860::8888]") for p in ("udp", "tcp")]
    runner = Runner(lab, form)
    found = runner.probe(*targets, nonce=label)
    assert {r.outcome for r in found.values()} == {"reached"}, "the gate answers in its place"
    assert not lab.receiver.saw(label)
    assert not lab.receiver.arrived("8.8.8.8")
    assert not lab.receiver.arrived("2001:4860:4860::8888")

    control = replace(runner, policy={"allow": ["8.8.8.8:5353/udp"]}).probe("8.8.8.8:5353/udp", nonce=label)
    assert control["8.8.8.8:5353/udp"].outcome == "reached"
    assert lab.receiver.saw(label), "the nonce is seen where it may go"


def test_a_denied_name_is_not_carried_out_in_a_query(lab: Lab, form: Form) -> None:
    secret = nonce()
    runner = Runner(lab, form, {"domains": ["allowed.example"]})
    lab.site("allowed.example")
    names = [f"{secret}.example", f"{secret}.allowed.example"]
    assert {r.outcome for r in runner.probe(*names).values()} == {"dns-denied"}
    assert not lab.receiver.saw(secret)
    lab.host.probe(names[0])
    assert lab.receiver.saw(secret), "without the firewall the query arrives"


def test_an_allowed_range_and_port_is_reached_without_a_name(lab: Lab, form: Form) -> None:
    v4, v6 = lab.fresh_v4(), lab.fresh_v6()
    runner = Runner(lab, form, {"allow": [f"{v4}:8080", f"[{v6}]:9000/udp"]})
    found = runner.probe(f"{v4}:8080", f"[{v6}]:9000/udp", f"{v4}:8081", f"[{v6}]:9001/udp")
    assert [r.outcome for r in found.values()] == ["reached", "reached", "refused", "refused"]
    assert {p.port for p in lab.receiver.arrived(v4)} == {8080}
    assert {p.port for p in lab.receiver.arrived(v6)} == {9000}


def test_the_hosts_own_services_are_out_of_reach(lab: Lab, form: Form) -> None:
    """On the uplink's address, on the loopback, and on the host's end of our own wire."""
    with lab.host.call(listen, "::", 7070) as service:
        runner = Runner(lab, form)
        script = (
            "for a in 198.51.100.2 127.0.0.1 $(ip -o route get 192.0.2.1 | sed 's/.* via \\([0-9.]*\\).*/\\1/'); do"
            ' timeout 2 bash -c "exec 3<>/dev/tcp/$a/7070" 2>/dev/null && echo reached $a; done; echo done'
        )
        assert runner.run("sh", "-c", script).text == "done"
        assert not accepted(service)
        assert lab.inet.reach("198.51.100.2:7070").outcome == "reached", "it does listen"
        assert accepted(service)


def test_root_without_the_firewall_cannot_send_raw_packets_either(lab: Lab) -> None:
    program = (
        "import socket\n"
        "for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW)):\n"
        "    try: socket.socket(family, kind, 255 if family == socket.AF_INET else 3); print('open')\n"
        "    except PermissionError: print('refused')\n"
    )
    runner = Runner(lab, ROOT)
    assert runner.run("/usr/bin/env", "python3", "-c", program).text.split() == ["refused", "refused"]
    assert lab.host.run(["python3", "-c", program]).text.split() == ["open", "open"]


def test_what_the_command_leaves_behind_ends_with_it(lab: Lab, form: Form) -> None:
    word = nonce()
    done = Runner(lab, form).run("sh", "-c", f"setsid sh -c 'sleep 1000; : {word}' & exit 7")
    assert done.status == 7
    assert not [p for p in processes_with(word) if "sleep" in p]


def listen(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen()
    sock.setblocking(False)
    return sock


def accepted(service: socket.socket) -> bool:
    try:
        service.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.requirement("F9")
@pytest.mark.parametrize("backend", ["nftables", "ipset"])
@pytest.mark.parametrize("form", [ROOT, USER], ids=str)
def test_both_backends_hold(lab: Lab, form: Form, allowed: Site, backend: str) -> None:
    closed, marks = lab.site(), [secrets.token_hex(8) for _ in range(3)]
    say = 'say() { timeout 5 bash -c "exec 3<>/dev/tcp/$1/$2; echo $3 >&3; head -1 <&3 >/dev/null"; }; '
    talk = [f"say {allowed.name} 22 {marks[0]}", f"say {allowed.name} 23 {marks[1]}", f"say {closed.v4} 22 {marks[2]}"]
    path = lab.directory / "report.json"
    path.touch()
    path.chmod(0o666)
    runner = Runner(lab, form, {"domains": [allowed.name]})
    runner.run(
        "bash", "-c", say + "; ".join([*talk, "true"]), options=["--backend", backend, "--json-report", str(path)]
    )
    assert [bool(lab.receiver.saw(mark)) for mark in marks] == [True, False, False]
    report = json.loads(path.read_text())
    assert report["backend"] == backend
    assert {row["port"] for row in report["refused"]} == {22, 23}
    lab.host.run(["bash", "-c", say + "; ".join(talk)])
    assert all(lab.receiver.saw(mark) for mark in marks), "from the host itself everything arrives"
