"""What the lab's name servers answer: a table of names. Pure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset


@dataclass(frozen=True, slots=True)
class Record:
    """One name."""

    a: tuple[str, ...] = ()
    aaaa: tuple[str, ...] = ()
    cname: str | None = None
    others: tuple[tuple[str, str], ...] = ()
    """Further records as (type, text), e.g. ``("TXT", '"hello"')``."""
    ttl: int = 60
    """Seconds."""
    rotate: bool = False
    """One address an answer, the next one each time."""
    rcode: str = "NOERROR"
    silent: bool = False
    """Queries are received and never answered."""
    truncate: bool = False
    """Answers over UDP carry the TC bit and no records."""
    compute: Callable[[str], Sequence[str]] | None = field(default=None, compare=False)
    """Called with ``A`` or ``AAAA`` for each query; its addresses replace `a` and `aaaa`."""


class Zone:
    """All names there are; everything else does not exist."""

    def __init__(self) -> None:
        self._records: dict[dns.name.Name, Record] = {}
        self._turns: dict[tuple[dns.name.Name, str], int] = {}
        self._lock = threading.Lock()

    def set(self, name: str, record: Record) -> None:
        """Add or replace a name."""
        with self._lock:
            self._records[_name(name)] = record

    def change(self, name: str, **fields: object) -> Record:
        """Replace single fields of a name; returns what it is now."""
        with self._lock:
            changed = replace(self._records[_name(name)], **fields)  # type: ignore[arg-type]  # fields are Record's
            self._records[_name(name)] = changed
        return changed

    def remove(self, name: str) -> None:
        """Let a name not exist any more."""
        with self._lock:
            self._records.pop(_name(name), None)

    def answer(self, query: dns.message.Message, transport: str) -> dns.message.Message | None:
        """The response to a query with one question; None where there is to be none.

        Args:
            query: As parsed.
            transport: ``udp`` or ``tcp``.
        """
        if not isinstance(query, dns.message.QueryMessage) or len(query.question) != 1:
            return None
        question = query.question[0]
        response = dns.message.make_response(query, recursion_available=True)
        with self._lock:
            record = self._records.get(question.name)
            if record is not None and record.silent:
                return None
            if record is not None and record.truncate and transport == "udp":
                response.flags |= dns.flags.TC
                return response
            self._fill(response, question.name, dns.rdatatype.to_text(question.rdtype))
        if not response.answer:
            soa = "ns.lab. hostmaster.lab. 1 3600 600 86400 30"
            response.authority.append(dns.rrset.from_text(dns.name.root, 30, "IN", "SOA", soa))
        return response

    def _fill(self, response: dns.message.Message, name: dns.name.Name, kind: str) -> None:
        for _ in range(16):
            record = self._records.get(name)
            if record is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                return
            response.set_rcode(dns.rcode.from_text(record.rcode))
            if record.cname is not None:
                response.answer.append(dns.rrset.from_text(name, record.ttl, "IN", "CNAME", record.cname + "."))
                name = _name(record.cname)
                continue
            texts = self._texts(name, record, kind)
            if texts and record.rcode == "NOERROR":
                response.answer.append(dns.rrset.from_text_list(name, record.ttl, "IN", kind, texts))
            return

    def _texts(self, name: dns.name.Name, record: Record, kind: str) -> list[str]:
        if kind not in ("A", "AAAA"):
            return [text for other, text in record.others if other == kind]
        if record.compute is not None:
            return list(record.compute(kind))
        addresses = list(record.a if kind == "A" else record.aaaa)
        if record.rotate and addresses:
            turn = self._turns.get((name, kind), 0)
            self._turns[name, kind] = turn + 1
            return [addresses[turn % len(addresses)]]
        return addresses


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text.lower())
