"""What names, sets and scripts look like, without a kernel; and which programs are taken."""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netpolicy import command, spans
from netpolicy.attachment import Attachment
from netpolicy.errors import UserError
from netpolicy.kernel import netns
from netpolicy.kernel.ipset import IpsetEnforcer, chains, layout, matching, programs, ranges
from netpolicy.kernel.ipset.layout import JUMPS
from netpolicy.kernel.ipset.naming import Names
from netpolicy.kernel.ipset.reading import Picture
from netpolicy.kernel.ipset.script import Script
from netpolicy.kernel.nftables.learning import Slot
from netpolicy.services import Service

IDS = st.from_regex("[a-z0-9]{1,16}", fullmatch=True)
SLOTS = st.builds(
    Slot,
    st.sampled_from([4, 6]),
    st.one_of(st.none(), st.builds(Service, st.integers(0, 255), st.integers(0, 65535), st.integers(0, 65535))),
)


@given(name=st.sampled_from(["netpolicy", "a", "second-table-of-ours"]), attachment_id=IDS, slot=SLOTS)
def test_names_fit_and_read_back(name: str, attachment_id: str, slot: Slot) -> None:
    names = Names.of(name)
    for turn in (0, 1):
        made = names.learned(slot, attachment_id, turn)
        assert len(made.encode()) <= 31
        assert names.slot(made, attachment_id) == (slot, turn)
        assert names.is_of(made, attachment_id)
        assert names.slot(made, f"{attachment_id[:15]}x" if attachment_id[15:] != "x" else "other") is None
    for kinds in layout.OWN_CHAINS.values():
        for kind in {kind for some in kinds.values() for kind in some}:
            made = names.own(attachment_id, kind)
            assert len(made.encode()) <= 28
            assert names.id_of(made, kind) == attachment_id
    for _, _, kind in JUMPS:
        assert names.id_of(names.shared(kind), kind) is None
    assert names.slot(names.counts(4, attachment_id), attachment_id) is None


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=5))
def test_networks_are_exactly_the_addresses(pairs: list[tuple[int, int]]) -> None:
    whole = spans.union([spans.Spans(4, ((min(pair), max(pair)),)) for pair in pairs] or [spans.Spans(4, ())])
    found = [ip_network((address, length)) for address, length in ranges.networks(whole)]
    assert spans.of_networks(found, 4).pairs == whole.pairs
    assert all(network.prefixlen > 0 for network in found)


def test_all_addresses_are_two_halves() -> None:
    for text, version in (("0.0.0.0/0", 4), ("::/0", 6)):
        found = list(ranges.networks(spans.of_networks([ip_network(text)], version)))
        assert [length for _, length in found] == [1, 1]


def test_a_comment_cannot_leave_its_quotes() -> None:
    said = matching.comment('x" -j ACCEPT\n-A FORWARD \\"' + "é" * 300)
    assert said.count('"') == 2
    assert "\n" not in said
    assert "\\" not in said
    assert len(said.encode()) < 300


@pytest.mark.parametrize("interface", ["eth+", "!eth", "-j", 'e"th', "e th", "e/th", "", "x" * 16])
def test_interfaces_that_mean_something_else_are_refused(interface: str) -> None:
    bad = Attachment("a", "a", interface, (ip_network("192.0.2.0/24"),), (ip_address("192.0.2.1"),))
    with pytest.raises(UserError, match="interface name"):
        chains.check(bad)


@pytest.mark.parametrize("prefix", ["", "a b", "-j", "x" * 15, 'x"'])
def test_prefixes_that_mean_something_else_are_refused(prefix: str) -> None:
    with pytest.raises(UserError, match="prefix"):
        chains.check_prefix(prefix)


def test_a_script_says_chains_first_and_one_commit_a_table() -> None:
    script = Script(4)
    script.chain("filter", "np-fwd", ["-j RETURN"])
    script.chain("mangle", "np-fwd", ["-j RETURN"])
    script.remove("mangle", "np-x-out")
    script.first("filter", "FORWARD", "np-fwd", 2)
    assert script.text(("mangle", "filter")).splitlines() == [
        *("*mangle", ":np-fwd - [0:0]", ":np-x-out - [0:0]", "-A np-fwd -j RETURN", "-X np-x-out", "COMMIT"),
        *("*filter", ":np-fwd - [0:0]", "-D FORWARD -j np-fwd", "-D FORWARD -j np-fwd", "-A np-fwd -j RETURN"),
        *("-I FORWARD 1 -j np-fwd", "COMMIT"),
    ]


def test_what_was_saved_is_read() -> None:
    lines = (
        "# Warning: iptables-legacy tables present",
        "*mangle",
        ":FORWARD ACCEPT [1:2]",
        ":np-fwd - [0:0]",
        ":np-ab-out - [0:0]",
        "-A FORWARD -i eth0 -j ACCEPT",
        "-A FORWARD -j np-fwd",
        "-A np-fwd -i csp-1 -g np-ab-out",
        "-A np-fwd -i csp-+ -g np-locked",
        '-A np-ab-out -m comment --comment "ruleset 0123456789ab enforce dns 5300 | a name" -j MARK --set-xmark 0x0/0x1',
        "COMMIT",
    )
    picture = Picture.read(Names.of("netpolicy"), lines)
    assert picture.jumps["mangle", "FORWARD"] == (1, False)
    assert picture.jumps["filter", "FORWARD"] == (0, False)
    assert picture.prefix == "csp-"
    assert {place.id: place.interface for place in picture.places.values()} == {"ab": "csp-1"}
    assert chains.ruleset_in(picture.first_rule("ab")) == "0123456789ab"
    assert chains.ruleset_in(picture.first_rule("none")) is None


def test_an_error_names_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(argv: list[str], **_: object) -> command.Completed:
        raise command.failed(
            command.Completed(tuple(argv), 2, b"", b"iptables-restore: unknown option\nError occurred at line: 2\n")
        )

    monkeypatch.setattr(command, "run", failing)
    with pytest.raises(UserError, match=r"unknown option.*-A x --wrong") as refused:
        programs.Programs(None, "legacy", False).restore(4, "*filter\n-A x --wrong\nCOMMIT\n")
    assert refused.value.code == "kernel-refused"


@pytest.mark.kernel
def test_which_sort_is_taken() -> None:
    """The one that has our rules, else the one that the host has rules in; and asking makes no tables."""
    namespace = netns.anonymous()

    def tables() -> str:
        return netns.call(namespace, programs._content, "ip")

    try:
        assert programs.choose(namespace, "np-fwd").sort == "nft"
        assert tables() == ""
        first = IpsetEnforcer("netpolicy", namespace)
        first.install("csp-")
        netns.call(namespace, command.run, ["iptables-legacy", "--list"])
        assert tables() == "filter"
        assert programs.choose(namespace, "np-fwd").sort == "nft", "where our rules are"
        assert programs.choose(namespace, "np1234-fwd").sort == "legacy", "where others' are"
        first.close()
    finally:
        os.close(namespace)


@pytest.mark.kernel
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    monkeypatch.setattr(
        command, "run", lambda argv, **_: (_ for _ in ()).throw(UserError("program-missing", f"no {argv[0]}"))
    )
    with pytest.raises(UserError) as refused:
        programs.choose(None, "np-fwd")
    assert refused.value.code == "kernel-missing"
    assert "no iptables" in refused.value.message
