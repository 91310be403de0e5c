"""The lab is what other tests' verdicts rest on, so its own promises are tested first."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import pytest

from netpolicy.clock import SystemClock
from netpolicy.kernel import netns
from netpolicy.lab import Lab, Record, Request, Response, ownership

pytestmark = pytest.mark.kernel


def leftovers(prefix: str) -> list[str]:
    found = [name for name in netns.names() if name.startswith(prefix)]
    return found + [path.name for path in Path("/tmp").iterdir() if path.name.startswith(prefix)]


def test_it_starts_fast_and_leaves_nothing() -> None:
    clock = SystemClock()
    begin = clock.monotonic()
    with Lab() as lab:
        assert clock.monotonic() - begin < 2
        prefix = lab.host.name.removesuffix("-host")
        lab.add_workload()
        assert leftovers(prefix)
    assert not leftovers(prefix)


def test_it_leaves_nothing_when_the_body_fails() -> None:
    prefix = ""
    with pytest.raises(ZeroDivisionError), Lab() as lab:
        prefix = lab.host.name.removesuffix("-host")
        raise ZeroDivisionError
    assert prefix
    assert not leftovers(prefix)


def test_it_leaves_nothing_when_it_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def broken(lab: Lab, _stack: contextlib.ExitStack) -> None:
        made.append(lab.host.name.removesuffix("-host"))
        raise OSError("no server")

    monkeypatch.setattr(Lab, "_serve", broken)
    with pytest.raises(OSError, match="no server"), Lab():
        pass
    assert not leftovers(made[0])


def test_two_labs_do_not_meet(lab: Lab) -> None:
    with Lab() as other:
        site, theirs = lab.site("same.example"), other.site("same.example")
        assert (site.v4, theirs.v4) == (site.v4, site.v4), "both hand out the same addresses"
        assert lab.host.reach("same.example").reached
        assert lab.receiver.arrived(site.v4) or lab.receiver.arrived(site.v6)
        assert not other.receiver.arrived(site.v4)
        assert not other.dns.queries()


def test_every_port_of_every_address_answers_and_names_who_was_asked(lab: Lab) -> None:
    for address in (lab.fresh_v4(), "8.8.8.8", "10.99.0.1", "169.254.169.254"):
        with lab.host.call(socket.create_connection, (address, 8443), 5) as sock:
            sock.sendall(b"hello\n")
            assert sock.recv(100) == f"netpolicy-lab tcp {address}:8443\nhello\n".encode()
    for address in (lab.fresh_v6(), "fd00:ec2::254"):
        with lab.host.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((address, 4242))
            sock.send(b"hello")
            assert sock.recv(100) == f"netpolicy-lab udp [{address}]:4242\nhello".encode()


def test_a_silent_client_gets_a_banner_and_a_connection_stays_open(lab: Lab) -> None:
    address = lab.fresh_v4()
    with lab.host.call(socket.create_connection, (address, 22), 5) as sock:
        assert sock.recv(100) == f"netpolicy-lab tcp {address}:22\n".encode()
        for word in (b"one", b"two"):
            sock.sendall(word)
            assert sock.recv(100) == word


def test_ping_answers_on_both_families(lab: Lab) -> None:
    site = lab.site()
    assert [r.outcome for r in lab.host.probe(f"{site.v4}/icmp", f"{site.v6}/icmp")] == ["reached", "reached"]


def test_https_by_name_with_the_labs_own_authority(lab: Lab) -> None:
    site = lab.site("secure.example")
    trusted = ssl.create_default_context(cafile=str(lab.ca))
    for address in site.addresses:
        raw = lab.host.call(socket.create_connection, (address, 443), 5)
        with trusted.wrap_socket(raw, server_hostname="secure.example") as sock:
            sock.sendall(b"GET /a?b HTTP/1.1\r\nHost: secure.example\r\n\r\n")
            assert b"netpolicy-lab secure.example" in sock.makefile("rb").read()
    assert [(r.host, r.path, r.tls) for r in lab.web.requests] == [("secure.example", "/a", True)] * 2


def test_pages_can_be_published(lab: Lab) -> None:
    lab.site("pages.example")
    lab.web.publish("pages.example", "/file", b"content")

    def echo(request: Request) -> Response:
        return Response(request.method.encode() + b" " + request.body, status=201)

    lab.web.publish("pages.example", "/echo", echo)
    fetch = "import sys, urllib.request as u; r = u.urlopen(sys.argv[1], data=sys.argv[2].encode() or None); print(r.status, r.read().decode())"
    for path, body, expected in (("/file", "", "200 content"), ("/echo", "x" * 9000, "201 POST " + "x" * 9000)):
        done = lab.host.run([sys.executable, "-c", fetch, f"http://pages.example{path}", body])
        assert done.text == expected


def test_names_resolve_for_programs_on_the_host_and_queries_are_on_record(lab: Lab) -> None:
    site = lab.site("known.example")
    result, missing = lab.host.probe("known.example", "missing.example")
    assert result.address in site.addresses
    assert missing.outcome == "dns-failed"
    assert {(q.name, q.kind) for q in lab.dns.queries()} == {
        (name, kind) for name in ("known.example", "missing.example") for kind in ("A", "AAAA")
    }
    assert lab.dns.queries("example", server="198.51.100.53") == lab.dns.queries()


def ask(
    lab: Lab, name: str, kind: str = "A", *, server: str = "198.51.100.53", tcp: bool = False
) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    function = dns.query.tcp if tcp else dns.query.udp
    return lab.host.call(function, query, server, timeout=5)


def test_dns_answers_as_told(lab: Lab) -> None:
    zone = lab.dns.zone
    zone.set("many.example", Record(a=("192.0.2.200", "192.0.2.201"), rotate=True, ttl=7))
    zone.set("alias.example", Record(cname="many.example"))
    zone.set("text.example", Record(others=(("TXT", '"payload"'),)))
    zone.set("big.example", Record(a=("192.0.2.202",), truncate=True))
    zone.set("broken.example", Record(rcode="SERVFAIL"))
    fresh = iter(("192.0.2.203", "192.0.2.204"))
    zone.set("new.example", Record(compute=lambda kind: [next(fresh)] if kind == "A" else []))

    first, second = (str(ask(lab, "many.example").answer[0][0]) for _ in range(2))
    assert {first, second} == {"192.0.2.200", "192.0.2.201"}
    alias = ask(lab, "ALIAS.example")
    assert [rrset.rdtype.name for rrset in alias.answer] == ["CNAME", "A"]
    assert alias.answer[1].ttl == 7
    assert "payload" in str(ask(lab, "text.example", "TXT").answer[0])
    assert ask(lab, "big.example").flags & dns.flags.TC
    assert ask(lab, "big.example", tcp=True).answer
    assert ask(lab, "broken.example").rcode() == 2
    assert ask(lab, "nosuch.example").rcode() == 3
    assert [str(ask(lab, "new.example").answer[0][0]) for _ in range(2)] == ["192.0.2.203", "192.0.2.204"]
    zone.change("many.example", a=("192.0.2.9",))
    assert str(ask(lab, "many.example", server="8.8.8.8").answer[0][0]) == "192.0.2.9"
    assert lab.dns.queries("many.example", server="8.8.8.8")


def test_silence_and_malformed_queries(lab: Lab) -> None:
    lab.dns.zone.set("mute.example", Record(silent=True))
    with lab.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("198.51.100.53", 53))
        sock.send(dns.message.make_query("mute.example", "A").to_wire())
        sock.send(b"\x07\x07garbage")
        assert sock.recv(100)[:4] == b"\x07\x07\x80\x01", "the malformed one is answered, the one before it is not"
    assert lab.dns.queries("mute.example")


def test_the_receiver_sees_what_nobody_answers(lab: Lab) -> None:
    nonce = "nonce-5f0c"
    raw = lab.host.socket(socket.AF_INET, socket.SOCK_RAW, 200)
    with raw:
        raw.sendto(nonce.encode(), ("192.0.2.77", 0))
    (packet,) = lab.receiver.saw(nonce)
    assert (packet.destination, packet.protocol, packet.port) == ("192.0.2.77", 200, None)
    lab.receiver.forget()
    assert not lab.receiver.saw(nonce)


def test_the_receiver_is_never_behind_the_sender(lab: Lab) -> None:
    """What was sent before the question is in the answer: a verdict of absence needs no waiting."""
    with lab.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(300):
            sock.sendto(f"count-{number:04}".encode(), ("203.0.113.7", 9))
            if number % 50 == 0:
                assert len(lab.receiver.saw("count-")) == number + 1
    assert len(lab.receiver.arrived("203.0.113.7", 9, 17)) == 300


def test_a_workload_reaches_the_internet_only_by_way_of_the_host(lab: Lab) -> None:
    box, site = lab.add_workload(), lab.site()
    assert box.reach(f"{box.gateways[0]}:1").outcome == "refused", "the host itself is a neighbour"
    alone = box.reach(f"{site.v4}:80", seconds=0.3)
    assert (alone.outcome, len(lab.receiver.arrived(site.v4, 80))) == ("timeout", 1), "it arrives, no answer comes back"
    with lab.nat():
        targets = [f"{site.v4}:81", f"[{site.v6}]:81", f"{site.v4}:82/udp", f"{site.v6}/icmp"]
        assert [r.outcome for r in box.probe(*targets)] == ["reached"] * 4
    assert box.attachment("box").to_json()["interface"] == box.interface


def test_a_workload_uses_its_gateway_as_resolver(lab: Lab) -> None:
    box = lab.add_workload()
    assert box.run(["cat", "/etc/resolv.conf"]).text.splitlines()[:2] == [f"nameserver {g}" for g in box.gateways]


def test_programs_end_with_the_lab() -> None:
    with Lab() as lab:
        process = lab.host.popen(["sh", "-c", "sleep 1000 & wait"])
    assert process.returncode == -signal.SIGKILL


def test_an_ordinary_user_can_run_programs_and_ping(lab: Lab) -> None:
    words = [sys.executable, "-c", "import os; print(os.getuid(), os.getgid(), os.getgroups())"]
    assert lab.host.run(words, user=65534).text == "65534 65534 []"


@contextlib.contextmanager
def lab_in_another_process() -> Iterator[tuple[subprocess.Popen[bytes], str, int]]:
    """A process that holds a lab, the lab's prefix, and the id of a program running in it."""
    program = (
        "import signal, threading; from netpolicy.lab import Lab\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs inherit it ignored
        "with Lab() as lab:\n"
        "    child = lab.host.popen(['sh', '-c', 'exec sleep 60'], stdout=-3)\n"
        "    print(lab.host.name.removesuffix('-host'), child.pid, flush=True)\n"
        "    while True: threading.Event().wait(0.1)\n"  # a signal just before a wait without end would be missed
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert owner.stdout is not None
        prefix, pid = owner.stdout.readline().split()
        yield owner, prefix.decode(), int(pid)
    finally:
        owner.kill()
        owner.communicate()


def wait_for_end(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 10)[0], f"process {pid} lives on"
    finally:
        os.close(fd)


def test_interrupted_it_leaves_nothing() -> None:
    with lab_in_another_process() as (owner, prefix, child):
        owner.send_signal(signal.SIGINT)
        owner.wait(10)
        wait_for_end(child)
        assert not leftovers(prefix)


def test_killed_its_programs_die_and_the_next_lab_collects_the_rest() -> None:
    with lab_in_another_process() as (owner, prefix, child):
        assert not ownership.orphaned(prefix + "-host")
        owner.kill()
        owner.wait(10)
        wait_for_end(child)
        assert ownership.orphaned(prefix + "-host")
        with Lab():
            assert not leftovers(prefix)


def test_a_process_id_used_again_does_not_protect_what_the_dead_one_left() -> None:
    mine = ownership.fresh()
    assert not ownership.orphaned(mine)
    _, pid, born, rest = mine.split("-", 3)
    assert ownership.orphaned(f"npl-{pid}-{int(born) - 1}-{rest}")
    assert not ownership.orphaned("somebody-else")
