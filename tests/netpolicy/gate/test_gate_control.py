"""The control socket and the ways to it: client, relay, command line. The gate behind it has a recording enforcer."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from gatekit import RecordingEnforcer, attachment, rules

from netpolicy.cli import main
from netpolicy.errors import UserError
from netpolicy.flow import Flow
from netpolicy.gate.client import GateClient, StreamTransport
from netpolicy.gate.core import Gate
from netpolicy.gate.relay import relay
from netpolicy.gate.server import ControlServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "gate.sock"


@pytest.fixture
async def served(gate: Callable[..., Gate], path: Path) -> AsyncIterator[Gate]:
    async with gate() as one:
        server = ControlServer(one, path)
        await server.start()
        yield one
        await server.close()


def lines(path: Path, *requests: bytes) -> list[dict[str, object]]:
    """Send all requests at once, hang up our side, read all responses."""
    with socket.socket(socket.AF_UNIX) as own:
        own.settimeout(10)
        own.connect(str(path))
        own.sendall(b"".join(requests))
        own.shutdown(socket.SHUT_WR)
        return [json.loads(line) for line in own.makefile("rb")]


async def test_a_whole_conversation(served: Gate, path: Path) -> None:
    def talk() -> None:
        with GateClient.connect(path, seconds=10) as client:
            assert client.hello().version == "test"
            assert client.attach(attachment()).phase == "locked"
            state = client.apply("a1", rules("a.example"), upstreams=["192.0.2.53"], resolve_seconds=0)
            assert (state.phase, state.ruleset) == ("enforced", rules("a.example").id)
            assert client.verified("a1", rules("a.example").id, {"state": "verified"}).verification == {
                "state": "verified"
            }
            assert client.show("a1").ruleset == rules("a.example")
            assert client.check("a1", Flow(6, 443, name="a.example")).allowed
            assert not client.check("a1", Flow(6, 22, address=ip_address("192.0.2.1"))).allowed
            assert [s.attachment.id for s in client.status().attachments] == ["a1"]
            assert client.status("a1").gate.prefix == "lo"
            with pytest.raises(UserError) as caught:
                client.show("nix")
            assert (caught.value.code, caught.value.exit_status) == ("not-attached", 4)
            client.detach("a1")
            assert client.status().attachments == ()

    await asyncio.to_thread(talk)


async def test_only_the_owner_may_connect(served: Gate, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (b"hello\n", "not a request"),
        (b"[]\n", "not a request"),
        (b'{"op": 7}\n', "unknown operation 7"),
        (b'{"op": "open"}\n', "unknown operation 'open'"),
        (b'{"op": ["hello"]}\n', "not a request"),
        (b'{"op": "show"}\n', "'id' is missing"),
        (b'{"op": "show", "args": []}\n', "args is no object"),
        (b'{"op": "attach", "args": {"attachment": 3}}\n', "'attachment' is malformed"),
        (b'{"op": "attach", "args": {"attachment": {"id": "a"}}}\n', "'attachment' is malformed"),
        (b'{"op": "apply", "args": {"id": "a1", "ruleset": {}}}\n', "'ruleset' is malformed"),
        (b'{"op": "apply", "args": {"id": "a1", "ruleset": {"format": 1}}}\n', "'ruleset' is malformed"),
        (b'{"op": "check", "args": {"id": "a1", "flow": {"protocol": 6}}}\n', "'flow' is malformed"),
        (b"\xff\xfe\n", "not a request"),
    ],
)  # fmt: skip
async def test_bad_requests_are_answered_and_the_connection_goes_on(
    served: Gate, path: Path, request_: bytes, says: str
) -> None:
    first, second = await asyncio.to_thread(lines, path, request_, b'{"op": "hello"}\n')
    assert first["ok"] is False
    assert first["error"]["code"] == "bad-request"  # type: ignore[index]
    assert says in first["error"]["message"]  # type: ignore[index]
    assert second["ok"] is True


async def test_many_requests_are_answered_in_order(served: Gate, path: Path) -> None:
    requests = [b'{"op": "hello"}\n', b'{"op": "show", "args": {"id": "x"}}\n', b'{"op": "status"}\n'] * 20
    got = await asyncio.to_thread(lines, path, *requests)
    assert [response["ok"] for response in got] == [True, False, True] * 20


async def test_a_defect_is_answered_and_the_gate_goes_on(
    served: Gate, path: Path, enforcer: RecordingEnforcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcer, "refused", lambda _id: {}["gone"])
    first, second = await asyncio.to_thread(lines, path, b'{"op": "status"}\n', b'{"op": "hello"}\n')
    assert first == {
        "ok": False,
        "error": {"code": "internal", "message": "a defect in the gate: KeyError('gone')", "exit_status": 5},
    }
    assert second["ok"] is True


async def test_a_request_ends_although_the_client_has_gone(
    served: Gate, path: Path, enforcer: RecordingEnforcer
) -> None:
    def hurry() -> None:
        with socket.socket(socket.AF_UNIX) as own:
            own.connect(str(path))
            own.sendall(json.dumps({"op": "attach", "args": {"attachment": attachment().to_json()}}).encode() + b"\n")

    await asyncio.to_thread(hurry)
    async with asyncio.timeout(10):
        while "a1" not in enforcer.held:
            await asyncio.sleep(0)


async def test_a_socket_left_behind_is_replaced_and_a_live_one_is_not(served: Gate, path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        ControlServer(served, path)
    assert caught.value.code == "gate-running"
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    server = ControlServer(served, left)
    await server.start()
    assert (await asyncio.to_thread(lines, left, b'{"op": "hello"}\n'))[0]["ok"] is True
    await server.close()
    assert not left.exists()


@pytest.mark.parametrize("where", ["file", "file/below", "x" * 120])
async def test_a_place_where_no_socket_can_be_is_said(served: Gate, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        ControlServer(served, tmp_path / where)
    assert (caught.value.code, caught.value.exit_status) == ("bad-socket", 2)
    assert (tmp_path / "file").exists()


def test_no_gate_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        GateClient.connect(tmp_path / "none.sock")
    assert (caught.value.code, caught.value.exit_status) == ("gate-unreachable", 3)
    assert "netpolicy gate serve" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "gate-gone"),
        (b"Traceback\n", "gate-protocol"),
        (b'{"ok": true, "result": {"version": 3}}\n', "gate-protocol"),
        (b'{"ok": true, "result": {"version":"9","format":9,"pid":1,"prefix":null,"upstreams":[]}}\n', "gate-version"),
    ],
)
def test_a_gate_that_answers_badly_is_said(answer: bytes, code: str) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(answer)
        far.shutdown(socket.SHUT_WR)
        stream = near.makefile("rwb")
        with pytest.raises(UserError) as caught:
            GateClient(StreamTransport(stream, stream)).handshake()
        assert caught.value.code == code


async def test_the_relay_carries_a_conversation(served: Gate, path: Path) -> None:
    """As through ``docker exec -i``: a pair of pipes, a process in between."""

    def talk() -> int:
        start = "import sys; from netpolicy.cli import main; sys.exit(main())"
        argv = [sys.executable, "-c", start, "gate", "relay", "--socket", str(path)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            client = GateClient(StreamTransport(process.stdout, process.stdin))
            client.handshake()
            client.attach(attachment())
            big = rules(*(f"n{n}.example" for n in range(3000)))
            assert client.apply("a1", big, resolve_seconds=0).names == 3000
            assert client.show("a1").ruleset == big
            process.stdin.close()
            return process.wait(10)

    assert await asyncio.to_thread(talk) == 0


async def test_the_relay_waits_for_a_gate_that_is_starting(gate: Callable[..., Gate], path: Path) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.sendall(b'{"op": "hello"}\n')
        near.shutdown(socket.SHUT_WR)
        relaying = asyncio.create_task(
            asyncio.to_thread(relay, str(path), stdin=far.fileno(), stdout=far.fileno(), wait=10)
        )
        async with gate() as one:
            server = ControlServer(one, path)
            await server.start()
            async with asyncio.timeout(10):
                assert await relaying == 0
            assert json.loads(near.makefile("rb").readline())["ok"] is True
            await server.close()


def test_the_relay_says_in_the_protocol_that_there_is_no_gate(tmp_path: Path) -> None:
    near, far = socket.socketpair()
    with near, far:
        assert relay(str(tmp_path / "none.sock"), stdin=far.fileno(), stdout=far.fileno()) == 3
        with pytest.raises(UserError) as caught:
            GateClient(StreamTransport(near.makefile("rb"), io.BytesIO())).hello()
        assert caught.value.code == "gate-unreachable"


def test_the_relay_imports_next_to_nothing() -> None:
    """A client waits for it to start: no event loop, no DNS, no netlink."""
    heavy = {"asyncio", "dns", "pyroute2", "logging", "concurrent", "subprocess", "pydantic"}
    code = (
        "import sys; from netpolicy.cli import main; main(['gate', 'relay', '--socket', '/nonexistent']);"
        f"print(sorted({heavy} & {{m.split('.')[0] for m in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


async def test_one_call_on_the_command_line(served: Gate, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*words: str) -> int:
        return main(["gate", "call", *words, "--socket", str(path)])

    assert await asyncio.to_thread(call, "attach", json.dumps({"attachment": attachment().to_json()})) == 0
    assert json.loads(capsys.readouterr().out)["phase"] == "locked"
    assert await asyncio.to_thread(call, "show", '{"id": "nix"}', "--json") == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-attached"
    assert await asyncio.to_thread(call, "show", "{") == 2
    assert "the arguments are not JSON" in capsys.readouterr().err
    assert await asyncio.to_thread(call, "show", "[]") == 2
    assert "not a JSON object" in capsys.readouterr().err


def test_no_gate_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "call", "status", "--socket", str(tmp_path / "none.sock")]) == 3
    assert "no gate is listening at" in capsys.readouterr().err


def test_an_empty_prefix_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "serve", "--prefix", "", "--state", str(tmp_path)]) == 2
    assert "would lock every interface" in capsys.readouterr().err
