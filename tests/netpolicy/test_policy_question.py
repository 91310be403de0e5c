"""Which flow a question means, what a probe target may be, and the rule that would allow a flow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_strategies import flows, targets

from netpolicy.errors import Exit, UserError
from netpolicy.policy import Refused, parse_flow, target
from netpolicy.policy.suggestion import suggestion
from netpolicy.policy.verifying import probe_target
from netpolicy.probe.verification import flow_of


@pytest.mark.parametrize(
    ("text", "flow"),
    [
        ("GitHub.com", "github.com:443/tcp"),
        (" github.com:22 ", "github.com:22/tcp"),
        ("github.com:443/udp", "github.com:443/udp"),
        ("github.com/icmp", "github.com/icmp"),
        ("192.0.2.1", "192.0.2.1:443/tcp"),
        ("2001:db8::1", "[2001:db8::1]:443/tcp"),
        ("2001:db8::1/icmp", "2001:db8::1/icmpv6"),
        ("::ffff:192.0.2.1", "192.0.2.1:443/tcp"),
        ("127.0.0.1:5432", "127.0.0.1:5432/tcp"),
        ("localhost:3000", "localhost:3000/tcp"),
        ("8.8.8.8:53/udp", "8.8.8.8:53/udp"),
        ("https://api.github.com/zen?x=1#y", "api.github.com:443/tcp"),
        ("http://example.com", "example.com:80/tcp"),
        ("HTTPS://user:secret@example.com:8443/", "example.com:8443/tcp"),
        ("https://example.com:/", "example.com:443/tcp"),
        ("https://[2001:db8::1]/x", "[2001:db8::1]:443/tcp"),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443/tcp"),
        ("wss://example.com/socket", "example.com:443/tcp"),
        ("git://example.com/x.git", "example.com:9418/tcp"),
        ("ssh://git@github.com/o/r", "github.com:22/tcp"),
        ("git@github.com:o/r.git", "github.com:22/tcp"),
        ("git@github.com:7o/r.git", "github.com:22/tcp"),
    ],
)
def test_a_question_means_one_flow(text: str, flow: str) -> None:
    assert str(parse_flow(text)) == flow


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a target is empty"),
        ("a b", "no spaces"),
        ("example.com:*", "one port"),
        ("example.com:80-90", "one port"),
        ("192.0.2.0/24", "one address, not a network"),
        ("gopher://example.com", "the port of gopher:// is not known here; write host:port"),
        ("https:///path", "a name is empty"),
        ("git@github.com:443", "a target has no user; write github.com:22 for SSH"),
        ("*.example.com", "this stands for many names, and one is needed here; write an exact name"),
        ("\udc80", "as it is registered"),
    ],
)
def test_what_is_no_question_is_bad_input(text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        parse_flow(text)
    assert (error.value.code, error.value.exit_status) == ("bad-target", Exit.BAD_INPUT)
    assert said in error.value.message
    error.value.message.encode()


@given(st.text(max_size=40) | st.text("ab.:/[]@*-_09%x ", max_size=30))
def test_any_text_is_a_question_or_bad_input(text: str) -> None:
    try:
        flow = parse_flow(text)
    except UserError as error:
        assert error.code == "bad-target"
    else:
        assert (flow.name is None) != (flow.address is None)


@given(targets() | st.sampled_from(["http://example.com:81/x", "https://[2001:db8::1]/", "https://a.example"]))
def test_a_probe_can_try_every_target_that_verify_accepts(text: str) -> None:
    try:
        tried = probe_target(text)
    except Refused:
        return
    assert probe_target(tried) == tried
    flow = flow_of(tried)
    assert str(flow).replace("icmpv6", "icmp") == str(parse_flow(text)).replace("icmpv6", "icmp")


@given(flows())
def test_a_suggestion_allows_exactly_its_flow(flow: object) -> None:
    text = suggestion(flow)  # type: ignore[arg-type]
    if text is not None:
        found = target.parse(text)
        assert any(service.covers(flow.protocol, flow.port) for service in found.services)  # type: ignore[attr-defined]
        assert all(service.first == service.last for service in found.services)
