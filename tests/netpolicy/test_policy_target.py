"""The target grammar: what is read, how it is written, and what is said of what is not a target."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from policy_strategies import targets

from netpolicy.policy import target
from netpolicy.policy.problems import Refused
from netpolicy.services import Service

TCP, UDP = 6, 17
EVERY = (Service(TCP, 1, 65535), Service(UDP, 1, 65535))


@pytest.mark.requirement("F6")
@pytest.mark.parametrize(
    ("text", "written", "services"),
    [
        ("example.com", "example.com", ()),
        ("Example.COM.", "example.com", ()),
        ("bücher.example", "xn--bcher-kva.example", ()),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah", ()),
        ("with_underscore.example.com", "with_underscore.example.com", ()),
        ("postgres", "postgres", ()),
        ("example.com:443", "example.com:443/tcp", (Service(TCP, 443, 443),)),
        ("example.com:443/udp", "example.com:443/udp", (Service(UDP, 443, 443),)),
        ("*.Example.com.:443", "*.example.com:443/tcp", (Service(TCP, 443, 443),)),
        ("*.bücher.example", "*.xn--bcher-kva.example", ()),
        ("*.example.com/icmp", "*.example.com/icmp", (Service(1), Service(58))),
        ("example.com:443/TCP", "example.com:443/tcp", (Service(TCP, 443, 443),)),
        ("example.com:8000-8010/sctp", "example.com:8000-8010/sctp", (Service(132, 8000, 8010),)),
        ("example.com:*", "example.com:*", EVERY),
        ("example.com:1-65535/udp", "example.com:*/udp", (EVERY[1],)),
        ("example.com/icmp", "example.com/icmp", (Service(1), Service(58))),
        ("example.com/icmpv6", "example.com/icmp", (Service(1), Service(58))),
        ("192.0.2.1", "192.0.2.1", ()),
        ("192.0.2.1/32", "192.0.2.1", ()),
        ("192.0.2.0/24", "192.0.2.0/24", ()),
        ("192.0.2.0/24:443", "192.0.2.0/24:443/tcp", (Service(TCP, 443, 443),)),
        ("192.0.2.0/24:*/udp", "192.0.2.0/24:*/udp", (EVERY[1],)),
        ("192.0.2.0/24/icmp", "192.0.2.0/24/icmp", (Service(1),)),
        ("2001:db8::1", "2001:db8::1", ()),
        ("2001:DB8::/32", "2001:db8::/32", ()),
        ("2001:db8::/32:443/udp", "[2001:db8::/32]:443/udp", (Service(UDP, 443, 443),)),
        ("2001:db8::/32/icmp", "2001:db8::/32/icmp", (Service(58),)),
        ("[2001:db8::1]", "2001:db8::1", ()),
        ("[2001:db8::1]:443", "[2001:db8::1]:443/tcp", (Service(TCP, 443, 443),)),
        ("[2001:db8::/32]:443/udp", "[2001:db8::/32]:443/udp", (Service(UDP, 443, 443),)),
        ("[2001:db8::]/32:443", "[2001:db8::/32]:443/tcp", (Service(TCP, 443, 443),)),
        ("[2001:db8::1]/icmp", "2001:db8::1/icmp", (Service(58),)),
        ("::ffff:192.0.2.1", "192.0.2.1", ()),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24", ()),
        ("0.0.0.0/0:22", "0.0.0.0/0:22/tcp", (Service(TCP, 22, 22),)),
        ("::/0", "::/0", ()),
        ("169.254.169.254:80", "169.254.169.254:80/tcp", (Service(TCP, 80, 80),)),
    ],
)
def test_targets_have_one_spelling(text: str, written: str, services: tuple[Service, ...]) -> None:
    found = target.parse(text)
    assert (str(found), found.services) == (written, services)
    assert target.parse(written) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a target is empty; write one such as example.com or example.com:443"),
        ("a b", "no spaces; write each target as an entry of its own"),
        ("example.com\n", "no spaces"),
        (".", "a name is empty"),
        (":443", "a name is empty"),
        ("a..b", "no empty part between its dots"),
        ("-a.example", "begins and ends with a letter or digit"),
        ("a-.example", "begins and ends with a letter or digit"),
        ("_dmarc.example.com", "_dmarc is a service label, not a host"),
        ("exa$mple.com", '"$" is none of them'),
        ("a" * 64 + ".example", "at most 63 characters"),
        (".".join(["abcdefg"] * 40), "at most 253 characters, this one has 319"),
        ("ü" * 254, "at most 253 characters"),
        ("straße.example", "sharp s is spelled in two ways in DNS"),
        ("ü" * 64 + ".example", "write the name as it is registered"),
        ("\udc80.example", "write the name as it is registered"),
        ("℀.example", '"/" is none of them'),
        (
            "*",
            "a wildcard is a whole first part, and the only one: *.example.com stands for all names below example.com",
        ),
        ("*.", "a wildcard is a whole first part"),
        ("*..", "a wildcard is a whole first part"),
        ("*.*.example", "a wildcard is a whole first part"),
        ("a*.example.com", "a wildcard is a whole first part"),
        ("*a.example.com", "a wildcard is a whole first part"),
        ("a.*.example.com:443", "a wildcard is a whole first part"),
        ("**.example.com", "a wildcard is a whole first part"),
        ("*.com", "com is a public suffix: anybody can have a name below it; write *.yourname.com, or the exact names"),
        ("*.co.uk.:443", "co.uk is a public suffix"),
        ("*.GitHub.io", "github.io is a public suffix"),
        ("*.elb.amazonaws.com", "elb.amazonaws.com is a public suffix"),
        ("*.kawasaki.jp", "kawasaki.jp is a public suffix"),
        (
            "*.core.windows.net",
            "below core.windows.net is the public suffix web.core.windows.net, where anybody can have a name",
        ),
        ("*.windows.net:443", "below windows.net is the public suffix web.core.windows.net"),
        ("*.amazonaws.com", "below amazonaws.com is the public suffix "),
        ("*.compute.amazonaws.com", "compute.amazonaws.com"),
        ("*.xn--p1ai", "xn--p1ai is a public suffix"),
        ("*.рф", "xn--p1ai is a public suffix"),
        ("*.corp", "corp is a public suffix"),
        ("*.localhost", "localhost is the workload itself"),
        ("*.192.0.2.1", "a name cannot end in a number"),
        ("*.example.com/24", "only addresses have a prefix length"),
        ("256.1.1.1", "is not an IPv4 address or network (examples: 192.0.2.1 or 192.0.2.0/24)"),
        ("192.0.2", "is not an IPv4 address or network"),
        ("192.0.02.1", "is not an IPv4 address or network"),
        ("example.0x7f", "a name cannot end in a number"),
        ("0x7f000001", "a name cannot end in a number"),
        ("192.0.2.1/24", "192.0.2.1/24 has bits set after its prefix; write 192.0.2.0/24"),
        ("192.0.2.0/33", "is not an IPv4 address or network"),
        ("192.0.2.0/255.255.255.0", "is not a protocol"),
        ("2001:db8::1/32", "write 2001:db8::/32"),
        ("2001:db8::/129", "is not an IPv6 address"),
        ("2001:db8::1/tcp:443", "\"tcp:443\" is not a protocol; did you mean 'tcp'?"),
        ("example:80:90", "is not an IPv6 address; with a port it is written [address]:port"),
        ("10.0.0.1:80:90", "this is no target; write host, host:port, host:port/protocol or [IPv6]:port"),
        ("[2001:db8::1", "this is no target"),
        ("[2001:db8::1]443", "this is no target"),
        ("[example.com]:443", "brackets are for IPv6 addresses; write example.com without them"),
        ("[192.0.2.1]:443", "brackets are for IPv6 addresses; write 192.0.2.1 without them"),
        ("fe80::1%eth0", "no zone here"),
        ("example.com/24", "only addresses have a prefix length; write example.com without /24"),
        ("example.com:0", "port 0 does not exist; ports go from 1 to 65535"),
        ("example.com:65536", "port 65536 does not exist"),
        ("example.com:443-80", "the range 443-80 is backwards; write 80-443"),
        ("example.com:https", '"https" is not a port; write a number from 1 to 65535, a range such as 8000-8010, or *'),
        ("example.com:", '"" is not a port'),
        ("example.com:80,443", 'several ports are written {"host": ..., "ports": [80, 443]}'),
        ("example.com:٤٤٣", "is not a port"),
        ("example.com:443/tpc", "\"tpc\" is not a protocol; did you mean 'tcp'?"),
        ("example.com:443/", '"" is not a protocol; known here: icmp, sctp, tcp, udp, udplite'),
        ("example.com/tcp", "say which ports: :443/tcp, or :*/tcp for every port"),
        ("example.com:7/icmp", "icmp has no ports; write /icmp alone"),
        ("https://example.com/path", "this is a URL; write example.com:443"),
        ("http://example.com:8080", "this is a URL; write example.com:8080"),
        ("ssh://git@example.com/x", "this is a URL; write example.com:22"),
        ("https://", "this is a URL; write the host:443"),
        ("git@example.com:o/r.git", "a target has no user; write example.com:22 for SSH"),
        ("localhost", "localhost is the workload itself"),
        ("db.localhost:5432", "localhost is the workload itself"),
        (
            "127.0.0.1",
            "127.0.0.1/32 is loopback (127.0.0.0/8), which never leaves the workload's own link: no rule can open it",
        ),
        ("::1", "is loopback (::1/128)"),
        ("0.0.0.0", "is unspecified"),
        ("::", "is unspecified"),
        ("224.0.0.0/24", "is multicast"),
        ("ff02::fb", "is multicast"),
        ("fe80::1", "is link-local"),
        ("255.255.255.255", "is reserved"),
        (
            "example.com:53",
            "the gate itself answers port 53, whichever server is named; `dns.upstream` chooses whom it asks",
        ),
        ("192.0.2.53:53/udp", "the gate itself answers port 53"),
    ],
)
def test_what_is_no_target_is_told_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(Refused) as refusal:
        target.parse(text)
    assert said in str(refusal.value)


def test_parts_without_effect_are_refused_as_well() -> None:
    assert str(target.of("example.com", (Service(TCP, 443, 443),))) == "example.com:443/tcp"
    with pytest.raises(Refused, match="port 53"):
        target.of("example.com", (Service(UDP, 53, 53),))


@given(targets())
def test_parse_print_parse_is_the_identity(text: str) -> None:
    found = target.parse(text)
    assert target.parse(str(found)) == found


@given(st.text(max_size=40) | st.text("ab.:/[]*-_019%x ", max_size=30))
@example("[]:")
@example("[::]/0/0")
@example("1" * 5000)
@example("a:" + "9" * 5000)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = target.parse(text)
    except Refused as refusal:
        assert str(refusal)
    else:
        assert target.parse(str(found)) == found
