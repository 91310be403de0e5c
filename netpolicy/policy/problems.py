"""What is wrong with a policy: all of it at once, each with file, key, value and what would be right."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from netpolicy.errors import Exit, UserError

_LONGEST_VALUE = 80
_LONGEST_MESSAGE = 400
_MOST_SHOWN = 20


class Refused(ValueError):
    """A piece of text that the language does not accept; its message is a sentence for people, safe to print."""

    def __str__(self) -> str:
        return printable(super().__str__())


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    file: str
    """As the user named it."""
    key: str
    """Path of keys from the top of the file, e.g. ``firewall.domains[2]``; empty where the file as a whole is wrong."""
    value: Any
    """The offending value, as JSON has it; None where it says nothing."""
    message: str
    """What is wrong, and what would be right."""

    def __str__(self) -> str:
        where = printable(f"{self.file}: {self.key}" if self.key else self.file)
        return f"{where}{' = ' + shown(self.value) if self.value is not None else ''}: {self.message}"


def shown(value: Any) -> str:
    """A value in a message: JSON on one line, cut where it is long, without characters that a terminal would act on."""
    return printable(json.dumps(value, ensure_ascii=False, default=str), _LONGEST_VALUE)


def printable(text: str, longest: int = _LONGEST_MESSAGE) -> str:
    """A text cut where it is long, without characters that a terminal would act on, on one line."""
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or the list of what is known."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(word.lower(), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"


def bad_policy(problems: Iterable[Problem]) -> UserError:
    """The one error for all of them."""
    rows = list(problems)
    lines = [str(row) for row in rows[:_MOST_SHOWN]]
    if len(rows) > _MOST_SHOWN:
        lines.append(f"and {len(rows) - _MOST_SHOWN} more")
    message = lines[0] if len(rows) == 1 else f"{len(rows)} problems in the policy:\n  " + "\n  ".join(lines)
    return UserError(
        "bad-policy",
        message,
        hint="docs/policy.md shows every key.",
        exit_status=Exit.BAD_INPUT,
        details={"problems": [{**asdict(row), "value": _printable(row.value)} for row in rows]},
    )


def _printable(value: Any) -> Any:
    """The value itself, unless JSON has no word for it (TOML's dates, infinity) or no file could hold it (lone surrogates)."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):
        return shown(value)
    return value
