"""Domain names: one spelling each (lower case, A-labels, no trailing dot), or a sentence that says why not."""

from __future__ import annotations

import re

from netpolicy.policy.problems import Refused, shown

_LABEL = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?\Z", re.ASCII)
#: A last label like this makes every URL parser read the whole as an IPv4 address (WHATWG URL, "ends in a number").
_NUMERIC = re.compile(r"([0-9]+|0x[0-9a-f]*)\Z", re.ASCII)
#: IDNA 2003 (which Python has) and IDNA 2008 (which browsers use) disagree about these; guessing would allow another domain.
_DEVIATIONS = {"ß": "sharp s", "ς": "final sigma", "\u200c": "zero width non-joiner", "\u200d": "zero width joiner"}

_WILDCARDS = "a wildcard is a whole first part, and the only one: *.example.com stands for all names below example.com"


def pattern(text: str) -> str:
    """The one spelling of an exact name, or of a wildcard: ``*.`` and a name.

    Raises:
        Refused: with a sentence that says what is wrong and what would be right.
    """
    if "*" not in text:
        return canonical(text)
    rest = text.removeprefix("*.")
    if rest in ("", ".", "*") or "*" in rest:
        raise Refused(_WILDCARDS)
    return f"*.{canonical(rest)}"


def canonical(text: str) -> str:
    """The one spelling of an exact name.

    Raises:
        Refused: with a sentence that says what is wrong and what would be right.
    """
    name = text.removesuffix(".")
    if not name:
        raise Refused("a name is empty; write one such as example.com")
    if "*" in name:
        raise Refused("this stands for many names, and one is needed here; write an exact name")
    _check_length(name)
    name = _to_ascii(name).lower()
    _check_length(name)
    labels = name.split(".")
    for label in labels:
        _check(label, name)
    if _NUMERIC.match(labels[-1]):
        raise Refused("a name cannot end in a number, and this is no IPv4 address (four numbers such as 192.0.2.1)")
    return name


def _check_length(name: str) -> None:
    if len(name) > 253:
        raise Refused(f"a name has at most 253 characters, this one has {len(name)}")


def _check(label: str, name: str) -> None:
    if not label:
        raise Refused("a name has no empty part between its dots")
    if len(label) > 63:
        raise Refused(f"a part of a name has at most 63 characters, {label[:20]}… has {len(label)}")
    if label.startswith("_"):
        raise Refused(f"{label} is a service label, not a host; write the host's own name")
    if not _LABEL.match(label):
        odd = next((c for c in label if not re.match(r"[a-z0-9_-]", c, re.ASCII)), None)
        if odd is not None:
            raise Refused(f"a name has letters, digits, dots and hyphens; {shown(odd)} is none of them")
        raise Refused(f"a part of a name begins and ends with a letter or digit; {label} does not")


def _to_ascii(name: str) -> str:
    if name.isascii():
        return name
    odd = next((c for c in name if c in _DEVIATIONS), None)
    if odd is not None:
        raise Refused(f"{_DEVIATIONS[odd]} is spelled in two ways in DNS; write the name as it is registered (xn--…)")
    # Python's codec is only loaded for names that need it.
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise Refused("this is not an internationalised name; write the name as it is registered (xn--…)") from error
