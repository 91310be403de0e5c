"""Providers' lists: fetched over real TLS from a server of our own, believed or not, kept, read again."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_strategies import anything

from netpolicy import compile_policy, presets
from netpolicy.cli import main
from netpolicy.clock import SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.lab.authority import Authority
from netpolicy.policy import Policy, load, parse
from netpolicy.presets import copies, fetching, freshening
from netpolicy.presets.copies import Copy, Damaged
from netpolicy.presets.judging import Absurd, judged
from netpolicy.presets.refreshing import refresh

SHIPPED = presets._snapshot("github").lists
SHIPPED_DATE = "2026-08-08"
NOW = 1800000000.0  # 2027-01-15
DAY = 86400.0

Answer = Callable[[BaseHTTPRequestHandler], None]


class HeldClock:
    """A clock that stands still, or jumps whenever it is asked how long something takes."""

    def __init__(self, jump: float = 0.0) -> None:
        self._jump, self._passed = jump, 0.0

    def monotonic(self) -> float:
        self._passed += self._jump
        return self._passed

    def now(self) -> float:
        return NOW


@dataclass
class Provider:
    """An HTTPS server with a certificate for localhost."""

    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/meta"

    def gives(self, document: Any, path: str = "/meta") -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers[path] = lambda handler: reply(handler, 200, body)


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Provider, Path]]:
    authority = Authority(tmp_path_factory.mktemp("ca"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.asked.append(self.path)
            provider.answers[self.path](self)

        def log_message(self, *_words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.socket = authority.context("localhost").wrap_socket(found.socket, server_side=True)
        found.handle_error = lambda *_words: None  # type: ignore[method-assign]  # clients that turn away are meant
        provider = Provider(found.server_address[1])
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield provider, authority.path
        found.shutdown()
        thread.join(10)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; where the copy of github will be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(freshening.VARIABLE, raising=False)
    return tmp_path / "cache" / "netpolicy" / "presets" / "github.json"


@pytest.fixture
def provider(server: tuple[Provider, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """The provider, trusted; with nothing to answer yet."""
    found, ca = server
    found.answers.clear()
    found.asked.clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return found


def answer(**changes: Any) -> dict[str, Any]:
    """What the provider says, with something of its own beside the lists."""
    return {"verifiable_password_authentication": False, **{k: list(v) for k, v in SHIPPED.items()}, **changes}


def refusal(provider: Provider, code: str, **more: Any) -> UserError:
    with pytest.raises(UserError) as error:
        refresh("github", url=provider.url, **{"clock": HeldClock(), **more})
    assert error.value.code == code
    assert error.value.exit_status == Exit.FAILED
    return error.value


@pytest.mark.requirement("F5")
def test_a_fetched_list_is_kept_and_used(provider: Provider, cache: Path) -> None:
    provider.gives(answer(web=[*SHIPPED["web"][1:], "198.51.100.0/24", "198.51.100.0/24", "::ffff:198.51.101.0/120"]))
    done = refresh("github", url=provider.url, clock=HeldClock())
    assert (done.file, done.source, done.fetched_at) == (cache, provider.url, NOW)
    assert done.added == ("198.51.100.0/24", "198.51.101.0/24")
    assert done.warnings == ()
    written = json.loads(cache.read_text())
    assert (written["fetched_at"], written["source"]) == ("2027-01-15T08:00:00Z", provider.url)
    github = presets.load("github")
    assert {"198.51.100.0/24", "198.51.101.0/24"} <= set(github.ranges)
    assert (github.ranges_date, github.ranges_at) == ("2027-01-15", NOW)
    assert (github.ranges_from, github.ranges_source, github.notes) == (str(cache), provider.url, ())
    assert len(set(github.ranges)) == len(github.ranges) == done.ranges
    # The next one takes its place, and is compared with it.
    provider.gives(answer())
    assert refresh("github", url=provider.url, clock=HeldClock()).removed == done.added
    assert [path.name for path in cache.parent.iterdir()] == ["github.json"]


@pytest.mark.requirement("F5")
@pytest.mark.requirement("F8")
def test_a_bad_line_is_left_out_and_told(provider: Provider, cache: Path) -> None:
    provider.gives(answer(api=["nonsense", 7, None, "192.0.2.1/24", *SHIPPED["api"], {}]))
    done = refresh("github", url=provider.url, clock=HeldClock())
    assert done.warnings == (
        "api[0] 'nonsense' is left out: it is no network",
        "api[1] 7 is left out: it is no network",
        "api[2] None is left out: it is no network",
        "api[3] '192.0.2.1/24' is left out: it is no network",
        f"api[{len(SHIPPED['api']) + 4}] {{}} is left out: it is no network",
    )
    assert json.loads(cache.read_text())["api"] == list(SHIPPED["api"])


@pytest.mark.requirement("F5")
@pytest.mark.parametrize("before", [False, True], ids=["nothing-kept", "one-kept"])
@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "it is no JSON object"),
        (b"<html>", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"\xff", "it is no JSON"),
        ({}, "it has no list 'web'"),
        (answer(git="192.0.2.0/24"), "it has no list 'git'"),
        (answer(web=[]), "its list 'web' is empty"),
        (answer(web=["x"] * 30), "its list 'web' is empty"),
        (answer(web=["198.51.100.0/24"] * 30), "its list 'web' has 1 networks, less than half of the 26 known so far"),
        (answer(git=SHIPPED["git"][:20]), "less than half of the 42 known so far"),
        (answer(web=[*SHIPPED["web"], "0.0.0.0/0"]), "its list 'web' has 0.0.0.0/0, which is far too wide"),
        (answer(web=[*SHIPPED["web"], "::/0"]), "its list 'web' has ::/0, which is far too wide"),
        (answer(web=[*SHIPPED["web"], "128.0.0.0/1"]), "far too wide"),
        (answer(web=[*SHIPPED["web"], "10.0.0.0/8"]), "far too wide"),
        (answer(web=[f"{a}.{b}.0.0/16" for a in (1, 2) for b in range(256)]), "more addresses of IPv4 than a /8"),
        (answer(web=[f"2a{n:02x}::/20" for n in range(32)]), "more addresses of IPv6 than a /16"),
        (answer(web=[*SHIPPED["web"], "10.1.0.0/16"]), "its list 'web' has 10.1.0.0/16, which is private (10.0.0.0/8)"),
        (answer(web=[*SHIPPED["web"], "169.254.169.254"]), "cloud metadata service"),
        (answer(web=[*SHIPPED["web"], "fd00::/64"]), "unique local"),
        (answer(web=[*SHIPPED["web"], "127.0.0.1"]), "loopback"),
    ],
)
def test_an_absurd_answer_is_refused_and_the_copy_before_stays(
    provider: Provider, cache: Path, document: Any, said: str, before: bool
) -> None:
    if before:
        provider.gives(answer())
        refresh("github", url=provider.url, clock=HeldClock())
    old = cache.read_bytes() if before else None
    provider.gives(document)
    error = refusal(provider, "list-refused")
    assert error.message.startswith(f"the answer of {provider.url} is refused: ")
    assert said in error.message
    assert error.hint == f"In use stays the copy of {'2027-01-15' if before else SHIPPED_DATE}."
    assert (cache.read_bytes() if cache.exists() else None) == old


@pytest.mark.requirement("F5")
def test_a_server_that_cannot_prove_who_it_is_is_not_believed(
    provider: Provider, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.gives(answer())
    other = f"https://127.0.0.1:{provider.port}/meta"
    with pytest.raises(UserError, match=r"the certificate is not to be trusted: .*127\.0\.0\.1") as error:
        refresh("github", url=other, clock=HeldClock())
    assert error.value.code == "fetch-failed"
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "the certificate is not to be trusted" in refusal(provider, "fetch-failed").message
    assert not provider.asked
    assert not cache.exists()


def _breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"web": [')


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * (1 << 20))


@pytest.mark.requirement("F5")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda handler: reply(handler, 503), "the answer was 503 Service Unavailable"),
        (lambda handler: reply(handler, 302, Location="http://localhost/meta"), "unknown url type: http"),
        (lambda handler: reply(handler, 302, Location="file:///etc/passwd"), "not allowed"),
        (lambda handler: reply(handler, 302, Location="/meta"), "redirect"),
        (_endless, "the answer is larger than 8 MiB"),
        (_breaks_off, "broke off"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n"), "SSH-2.0"),
        (lambda handler: None, "closed connection without response"),
    ],
)
def test_what_cannot_be_fetched_says_why_and_changes_nothing(
    provider: Provider, cache: Path, given: Answer, said: str
) -> None:
    provider.answers["/meta"] = given
    error = refusal(provider, "fetch-failed")
    assert said in error.message
    assert error.hint == f"In use stays the copy of {SHIPPED_DATE}."
    assert not cache.exists()


def test_an_answer_that_does_not_come_is_given_up(provider: Provider) -> None:
    over = threading.Event()
    provider.answers["/meta"] = lambda _handler: over.wait(10) and None
    try:
        assert "took too long" in refusal(provider, "fetch-failed", seconds=0.2).message
        assert not over.is_set()
    finally:
        over.set()


def test_an_answer_that_never_comes_to_its_end_is_given_up(provider: Provider) -> None:
    provider.answers["/meta"] = _endless
    assert "the answer took too long" in refusal(provider, "fetch-failed", clock=HeldClock(20.0)).message


def test_a_redirect_to_https_is_followed_and_no_other_scheme_is_asked(provider: Provider, cache: Path) -> None:
    provider.answers["/meta"] = lambda handler: reply(handler, 301, Location="/elsewhere")
    provider.gives(answer(), "/elsewhere")
    assert refresh("github", url=provider.url, clock=HeldClock()).ranges
    assert provider.asked == ["/meta", "/elsewhere"]
    for url in ("http://localhost/meta", "file:///etc/passwd", "localhost", "https://localhost:port/", "https://"):
        with pytest.raises(UserError) as error:
            refresh("github", url=url, clock=HeldClock())
        assert error.value.code == "fetch-failed"


def test_a_proxy_is_asked_where_one_is_set(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def once() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        thread = threading.Thread(target=once, daemon=True)
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        assert "403 Forbidden" in refusal(provider, "fetch-failed").message
        thread.join(10)
    assert asked[0].startswith(f"CONNECT localhost:{provider.port} ".encode())
    assert not provider.asked


def test_nobody_listening_says_so(provider: Provider) -> None:
    with pytest.raises(UserError, match="Connection refused"):
        refresh("github", url="https://localhost:1/meta", clock=HeldClock())


def test_a_copy_that_cannot_be_written_leaves_the_one_before(
    provider: Provider, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.gives(answer())
    refresh("github", url=provider.url, clock=HeldClock())
    old = cache.read_bytes()

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    provider.gives(answer(web=[*SHIPPED["web"], "198.51.100.0/24"]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert refusal(provider, "cache-unwritable").message == f"{cache} cannot be written: No space left on device"
    assert [path.name for path in cache.parent.iterdir()] == ["github.json"]
    assert cache.read_bytes() == old
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))  # a file where a directory is needed
    assert refusal(provider, "cache-unwritable").message.endswith("cannot be written: Not a directory")
    assert presets.load("github").ranges_from == presets.SHIPPED
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "")
    assert "neither XDG_CACHE_HOME nor HOME" in refusal(provider, "cache-unwritable").message
    assert presets.load("github").ranges_from == presets.SHIPPED


def test_the_cache_is_where_the_environment_says() -> None:
    assert copies.place("github", {"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/netpolicy/presets/github.json")
    assert copies.place("github", {"XDG_CACHE_HOME": "c", "HOME": "/h"}) == Path(
        "/h/.cache/netpolicy/presets/github.json"
    )
    assert copies.place("github", {}) is None


GOOD = {
    "source": "https://api.github.com/meta",
    "fetched_at": "2027-01-15T08:00:00Z",
    **{k: list(v) for k, v in SHIPPED.items()},
}


@pytest.mark.requirement("F5")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it is no copy that was written here"),
        (json.dumps(GOOD)[:-9], "it is no copy that was written here"),
        ("[" * 100_000, "it is no copy that was written here"),
        ("[]", "it is no JSON object"),
        ({**GOOD, "fetched_at": "yesterday"}, "it is no copy that was written here"),
        ({**GOOD, "fetched_at": 1800000000}, "it is no copy that was written here"),
        ({**GOOD, "fetched_at": "2027-01-15T08:00:00"}, "it is no copy that was written here"),
        ({**GOOD, "fetched_at": "9999-12-31T23:59:59-23:00"}, "it is no copy that was written here"),
        ({**GOOD, "fetched_at": "9999-12-31T23:59:59Z"}, "it is no copy that was written here"),
        ({**GOOD, "source": "\x1b[31m"}, "it is no copy that was written here"),
        ({**GOOD, "source": 7}, "it is no copy that was written here"),
        ({key: value for key, value in GOOD.items() if key != "source"}, "it is no copy that was written here"),
        ({**GOOD, "git": []}, "its list 'git' is empty"),
        ({**GOOD, "git": ["0.0.0.0/0"]}, "far too wide"),
        ({**GOOD, "git": [*SHIPPED["git"], "x"]}, "it is no copy that was written here"),
        (" " * (copies.LARGEST_BYTES + 1), "it is too large"),
        (None, "it is no file"),
        (b"\xff", "it is no copy that was written here"),
    ],
)
def test_a_damaged_copy_is_a_warning_and_the_shipped_one_is_used(
    cache: Path, capsys: pytest.CaptureFixture[str], content: Any, said: str
) -> None:
    cache.parent.mkdir(parents=True)
    if content is None:
        os.mkfifo(cache, 0o600)
    else:
        cache.write_bytes(
            content
            if isinstance(content, bytes)
            else (content if isinstance(content, str) else json.dumps(content)).encode()
        )
    github = presets.load("github")
    assert (github.ranges_from, github.ranges_date) == (presets.SHIPPED, SHIPPED_DATE)
    (note,) = github.notes
    assert note.startswith(f"the copy {cache} is not used: ")
    assert said in note
    assert compile_policy(load(None)).warnings == (f"preset:github: {note}",)
    assert main(["check", "github.com"]) == 0
    assert f"  warning   preset:github: {note}\n" in capsys.readouterr().out
    assert main(["presets", "show", "github"]) == 0
    assert f"  warning   {note}\n" in capsys.readouterr().out


def test_a_copy_that_others_can_write_or_nobody_can_read_is_not_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps(GOOD))
    assert presets.load("github").ranges_from == str(cache)
    cache.chmod(0o602)
    assert presets.load("github").notes == (f"the copy {cache} is not used: somebody else can write it",)
    cache.chmod(0o600)

    def denied(*_words: Any, **_more: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        with pytest.raises(Damaged, match="it cannot be read: Permission denied"):
            copies.read(cache, ("web",))
    if os.geteuid() == 0:
        os.chown(cache, 12345, 12345)
        assert presets.load("github").notes == (f"the copy {cache} is not used: somebody else can write it",)


@pytest.mark.requirement("F5")
def test_the_newer_copy_is_used_and_its_age_is_said(cache: Path) -> None:
    policy = Policy(active=(presets.load("github"),))
    shipped_at = presets._snapshot("github").at
    assert compile_policy(policy).warnings == (), "without a clock nothing has an age"
    for now, age in ((shipped_at + 105.5 * DAY, "105 days"), (shipped_at + DAY, "1 day")):
        assert compile_policy(policy, now=now).warnings == (
            f"preset:github: its networks are those of {SHIPPED_DATE}, {age} old, as shipped with the package; "
            "netpolicy presets refresh github fetches them",
        )
    copies.write(cache, Copy("https://api.github.com/meta", shipped_at, {**SHIPPED, "web": ("198.51.100.0/24",)}))
    assert presets.load("github").ranges_from == presets.SHIPPED, "one that is not newer is not used"
    copies.write(cache, Copy("https://api.github.com/meta", NOW, {**SHIPPED, "web": ("198.51.100.0/24",)}))
    policy = Policy(active=(presets.load("github"),))
    assert "198.51.100.0/24" in {str(rule.network) for rule in compile_policy(policy).ranges}
    assert compile_policy(policy, now=NOW + 30 * DAY).warnings == ()
    assert compile_policy(policy, now=NOW + 31 * DAY).warnings == (
        "preset:github: its networks are those of 2027-01-15, 31 days old; netpolicy presets refresh github fetches them",
    )
    off = parse({"presets": {"github": False}}, source="p")
    assert compile_policy(off, now=NOW + 31 * DAY).warnings == ()


@pytest.mark.requirement("F4")
@pytest.mark.requirement("F5")
def test_refresh_list_and_show_from_the_command_line(
    provider: Provider, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> tuple[int, str]:
        status = main(["presets", *words])
        found = capsys.readouterr()
        return status, found.out + found.err

    status, out = said("list")
    assert status == 0
    assert re.search(
        rf"^github .* 62 \({SHIPPED_DATE}, \d+ days old, as shipped with the package\) ", out, re.MULTILINE
    )
    row = next(row for row in json.loads(said("list", "--json")[1])["presets"] if row["name"] == "github")
    assert (row["ranges_from"], row["ranges_date"], row["ranges"]) == ("shipped", SHIPPED_DATE, 62)
    provider.gives(answer(web=["x", *SHIPPED["web"], "198.51.100.0/24"], git=SHIPPED["git"]))
    status, out = said("refresh", "github", "--url", provider.url)
    assert (status, out.splitlines()) == (0, [
        f"github: 63 networks of {provider.url}, kept in {cache}",
        "  new      198.51.100.0/24",
        "  warning  web[0] 'x' is left out: it is no network",
    ])  # fmt: skip
    provider.gives(answer())
    (found,) = json.loads(said("refresh", "--json", "--url", provider.url)[1])["refreshed"]
    assert (found["name"], found["file"], found["added"], found["removed"]) == (
        "github",
        str(cache),
        [],
        ["198.51.100.0/24"],
    )
    out = said("show", "github")[1]
    assert re.search(
        rf"^  networks  of {provider.url}, \d+-\d+-\d+, 0 days old\n  copy      {cache}$", out, re.MULTILINE
    )
    assert " 62 (" in said("list")[1]
    provider.gives(answer(web=[]))
    status, out = said("refresh", "--url", provider.url)
    assert (status, out.splitlines()[0]) == (
        5,
        f"error: the answer of {provider.url} is refused: its list 'web' is empty",
    )
    assert said("refresh", "gihtub") == (2, "error: there is no preset 'gihtub'; did you mean 'github'?\n")
    status, out = said("refresh", "npm")
    assert (status, out.splitlines()[-1]) == (2, "  Those that do: github.")
    monkeypatch.setattr(fetching, "LARGEST_BYTES", 10)
    assert said("refresh", "--url", provider.url)[0] == 5


@given(
    st.fixed_dictionaries(
        {
            "web": anything
            | st.lists(anything | st.ip_addresses().map(str) | st.sampled_from(SHIPPED["web"]), max_size=6)
        }
    )
    | anything
)
@settings(max_examples=80)
def test_any_answer_is_judged(document: Any) -> None:
    try:
        lists, dropped = judged(document, ("web",), {})
    except Absurd as error:
        assert str(error)
    else:
        assert lists["web"]
        assert len(lists["web"]) + len(dropped) <= len(document["web"])
        assert judged(lists | {"web": list(lists["web"])}, ("web",), lists) == (lists, ())


def test_tls_is_verified_by_default_and_the_real_clock_serves(provider: Provider, cache: Path) -> None:
    assert ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED
    provider.gives(answer())
    assert refresh("github", url=provider.url, clock=SystemClock()).fetched_at > NOW - 365 * DAY


@pytest.mark.requirement("F5")
def test_an_old_list_is_fetched_by_itself_once_a_day(provider: Provider, cache: Path) -> None:
    provider.gives(answer(web=[*SHIPPED["web"][1:], "198.51.100.0/24"]))
    assert freshening.due([presets.load("github"), presets.load("npm")], os.environ, NOW) == ("github",)
    assert freshening.freshen(["github"], os.environ, clock=HeldClock(), url=provider.url) == {}
    fetched = presets.load("github")
    assert "198.51.100.0/24" in fetched.ranges
    assert freshening.due([fetched], os.environ, NOW + DAY - 1) == ()
    assert freshening.due([fetched], os.environ, NOW + DAY + 1) == ("github",)


@pytest.mark.requirement("F5")
def test_a_provider_that_cannot_be_had_is_left_alone_for_a_while(provider: Provider, cache: Path) -> None:
    provider.answers["/meta"] = lambda handler: reply(handler, 503)
    shipped = presets.load("github")
    failed = freshening.freshen(["github"], os.environ, clock=HeldClock(), url=provider.url)
    assert list(failed) == ["github"]
    assert "503" in failed["github"]
    assert presets.load("github") == shipped
    assert freshening.due([shipped], os.environ, NOW + freshening.PATIENCE - 1) == ()
    assert freshening.due([shipped], os.environ, NOW + freshening.PATIENCE + 1) == ("github",)
    # A clock that was set back does not make the pause longer, and neither does a damaged note.
    assert freshening.due([shipped], os.environ, NOW - DAY) == ("github",)
    cache.with_suffix(".unreachable").write_text("yesterday")
    assert freshening.due([shipped], os.environ, NOW) == ("github",)


def test_nothing_is_fetched_where_that_is_switched_off_or_there_is_no_place_for_it() -> None:
    github = presets.load("github")
    assert freshening.due([github], {**os.environ, "NETPOLICY_REFRESH": "off"}, NOW) == ()
    assert freshening.due([github], {}, NOW) == ()
    assert freshening.freshen(["github"], {}, clock=HeldClock(), url="https://localhost:1/") != {}


def test_an_attempt_that_cannot_be_noted_is_only_made_sooner(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    provider.answers["/meta"] = lambda handler: reply(handler, 503)
    failed = freshening.freshen(["github"], os.environ, clock=HeldClock(), url=provider.url)
    assert list(failed) == ["github"]
    assert freshening.due([presets.load("github")], os.environ, NOW) == ("github",)
