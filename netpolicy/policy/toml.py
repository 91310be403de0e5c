"""Reading TOML with messages like those for JSON: line, column, and the cause that people usually have."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from netpolicy.policy.problems import Refused

_WHERE = re.compile(
    r"(?P<said>.*) \(at (?:line (?P<line>[0-9]+), column (?P<column>[0-9]+)|end of document)\)\Z", re.DOTALL
)
_CAUSES = {
    "Invalid value": "expected a value (texts stand in quotes; true and false in lower case)",
    "Cannot overwrite a value": "this key is written twice in one table",
    "Illegal character '\\n'": "a quote is not closed on its line",
    "Expected newline or end of document after a statement": "expected the end of the line (a comma, or a second value?)",
    "Unclosed array": "a list is not closed (a comma missing between its entries?)",
    "Expected '=' after a key in a key/value pair": "expected = after a key",
}


def decode(text: str) -> dict[str, Any]:
    """The tables of a TOML document.

    Raises:
        Refused: with line, column and what was expected there.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(_plain(str(error), text)) from error


def _plain(message: str, text: str) -> str:
    match = _WHERE.match(message)
    if match is None:
        return message
    before = text.rpartition("\n")
    line = match["line"] or text.count("\n") + 1
    column = match["column"] or len(before[2]) + 1
    said = match["said"]
    twice = re.match(r"Cannot declare \((.*?),?\) twice", said)
    if twice is not None:
        keys = re.findall(r"'([^']*)'", twice[1])
        said = f"the table [{'.'.join(keys)}] is written twice"
    return f"line {line}, column {column}: {_CAUSES.get(said, said[:1].lower() + said[1:])}"
