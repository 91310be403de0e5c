"""Reads what an earlier version of the gate remembered (format 1): every word of it can be said today. Pure."""

from __future__ import annotations

from typing import Any

from netpolicy.ruleset import FORMAT


def row(document: dict[str, Any]) -> dict[str, Any]:
    """One attachment in today's form. Raises KeyError, TypeError or ValueError on a malformed document."""
    known = document["ruleset"]
    return {**document, "ruleset": None if known is None else _ruleset(known), "unconfirmed": None, "locked_by": None}


def _ruleset(document: dict[str, Any]) -> dict[str, Any]:
    """Rules without ends, of a policy that knew no denials, always had IPv6, and left repairs to the next start."""
    if document["format"] != 1:
        raise ValueError(f"a ruleset of format {document['format']!r} in a file of format 1")
    return {
        **document,
        "format": FORMAT,
        "names": [[*rule, None] for rule in document["names"]],
        "ranges": [[*rule, None] for rule in document["ranges"]],
        "denied_names": [],
        "denied_ranges": [],
        "ipv6": True,
        "on_drift": "repair",
    }
