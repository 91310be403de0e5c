"""The transport: transactions, listings, and errors that name their message."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest
from knocking import nft

from netpolicy.errors import UserError
from netpolicy.kernel import netns
from netpolicy.kernel.netlink import KernelError, Message, Netlink, refuse
from netpolicy.kernel.nftables.messages import Op, SetFlag, Table, Type, element
from netpolicy.kernel.nftables.reading import Reader

pytestmark = pytest.mark.kernel

TABLE = Table("t")


@pytest.fixture
def link() -> Iterator[Netlink]:
    namespace = netns.anonymous()
    made = Netlink(namespace)
    made.namespace = namespace  # type: ignore[attr-defined]
    yield made
    made.close()
    os.close(namespace)


def addresses(count: int) -> list[bytes]:
    return [element(number.to_bytes(4, "big")) for number in range(count)]


def test_all_or_nothing(link: Netlink) -> None:
    link.transaction([TABLE.add(), TABLE.add_chain("a")])
    with pytest.raises(KernelError) as refused:
        link.transaction([TABLE.add_chain("b"), TABLE.add_rule("missing"), TABLE.add_chain("c")])
    assert (refused.value.index, refused.value.number) == (1, errno.ENOENT)
    assert refused.value.message.what == "add rule to missing in table t"
    assert Reader(link, TABLE).chains() == ["a"]
    link.transaction([TABLE.add_chain("d")])
    assert sorted(Reader(link, TABLE).chains()) == ["a", "d"], "the socket is fit for use after an error"


def test_the_first_of_several_errors_is_told(link: Netlink) -> None:
    link.transaction([TABLE.add()])
    with pytest.raises(KernelError) as refused:
        link.transaction([TABLE.add_chain("a"), *(TABLE.flush(f"missing{n}") for n in range(500))])
    assert refused.value.message.what == "flush chain missing0 in table t"


def test_nothing_to_send(link: Netlink) -> None:
    link.transaction([])
    link.request([])


def test_a_large_transaction_and_a_large_listing(link: Netlink) -> None:
    fill = TABLE.add_elements("s", addresses(50_000))
    assert len(fill) > 10, "an attribute holds 64 KiB, so it takes many messages"
    link.transaction([TABLE.add(), TABLE.add_set("s", 0, Type.IPV4, 4), *fill])
    assert len(Reader(link, TABLE).elements("s")) == 50_000
    assert Reader(link, TABLE).has_set("s")
    assert not Reader(link, TABLE).has_set("missing")


def test_a_listing_given_up_does_not_spoil_the_next_answer(link: Netlink) -> None:
    link.transaction([TABLE.add(), TABLE.add_set("s", 0, Type.IPV4, 4), *TABLE.add_elements("s", addresses(5000))])
    rows = link.stream(TABLE.question(Op.GETSETELEM, "list s", set_name="s"))
    next(rows)
    rows.close()
    assert Reader(link, TABLE).sets() == ["s"]
    assert len(Reader(link, TABLE).elements("s")) == 5000
    link.transaction([TABLE.add_chain("a")])
    assert Reader(link, TABLE).chains() == ["a"]


def test_listing_what_is_not_there(link: Netlink) -> None:
    assert Reader(link, TABLE).chains() == []
    link.transaction([TABLE.add()])
    assert Reader(link, TABLE).elements("missing") == []
    assert Reader(link, TABLE).comments("missing") == []


def test_only_our_table_is_read(link: Netlink) -> None:
    nft(
        link.namespace, stdin="add table inet other\nadd chain inet other c\nadd set inet other s { type ipv4_addr; }\n"
    )  # type: ignore[attr-defined]
    link.transaction([TABLE.add(), TABLE.add_chain("ours")])
    reader = Reader(link, TABLE)
    assert (reader.chains(), reader.sets(), reader.counters()) == (["ours"], [], {})


@pytest.mark.parametrize(
    ("number", "code", "hint"),
    [
        (errno.EINVAL, "kernel-refused", False),
        (errno.EPERM, "kernel-refused", True),
        (errno.EOPNOTSUPP, "kernel-missing", False),
    ],
)
def test_errors_for_people(number: int, code: str, hint: bool) -> None:
    with pytest.raises(UserError) as told:
        refuse(KernelError(Message(0, b"", "add chain x in table t"), number, 3, "because"), "cannot lock it")
    assert told.value.code == code
    assert (
        told.value.message
        == f"cannot lock it: the kernel refused to add chain x in table t: {os.strerror(number)} (because)"
    )
    assert told.value.details == {"message": "add chain x in table t", "index": 3, "errno": errno.errorcode[number]}
    assert (told.value.hint is not None) is hint


def test_overlapping_ranges_are_refused_with_the_set_named(link: Netlink) -> None:
    """What would happen if ranges were not joined beforehand; the kernel's answer stays readable."""
    both = [element(bytes([10, 0, 0, 0])), element(bytes([10, 0, 1, 0])), element(bytes([10, 0, 0, 128]))]
    with pytest.raises(KernelError) as refused:
        link.transaction(
            [TABLE.add(), TABLE.add_set("s", SetFlag.TIMEOUT, Type.IPV4, 6), *TABLE.add_elements("s", both)]
        )
    assert "s in table t" in str(refused.value)


def test_without_the_right_to_it() -> None:
    """An ordinary process may open the socket; the kernel refuses what it asks, and the hint says what is missing."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            link = Netlink()
            try:
                link.transaction([TABLE.add()])
            except KernelError as error:
                status = 0 if error.number == errno.EPERM else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_socket_stays_in_its_namespace(link: Netlink) -> None:
    link.transaction([TABLE.add()])
    assert nft(link.namespace, "list", "tables") == "table inet t"  # type: ignore[attr-defined]
    with netns.socket_in(link.namespace, socket.AF_INET, socket.SOCK_DGRAM):  # type: ignore[attr-defined]
        pass
