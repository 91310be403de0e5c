"""When a rule ends: an RFC 3339 date or date-time, or TOML's own, read and written."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from netpolicy.policy.problems import Refused

_FORM = 'a date such as "2027-01-31" (to the end of that day, UTC), or a date and time such as "2027-01-31T18:00:00Z"'
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", re.ASCII)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})?\Z",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Times outside are slips, and the first of the year 10000 has no text.
_FIRST, _LAST = (
    (datetime(2000, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds(),
    (date.max - date(1970, 1, 1)).days * 86400.0,
)


def parse(value: Any) -> float:
    """The moment at which a rule ends, in whole seconds since 1970; a fraction is dropped.

    Raises:
        Refused: with a sentence that says what would be right.
    """
    moment = _moment(_read(value) if isinstance(value, str) else value)
    if not _FIRST <= moment <= _LAST:
        raise Refused("a rule ends between the years 2000 and 9999")
    return moment


def written(moment: float) -> str:
    """The shortest text that `parse` reads back."""
    found = _EPOCH + timedelta(seconds=moment)
    if not moment % 86400:
        return (found - timedelta(days=1)).date().isoformat()
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(value: Any) -> float:
    # A datetime is a date as well.
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Refused(
                f"has no time zone; write {value.isoformat(timespec='seconds')}Z, or an offset such as +01:00"
            )
        return float((value - _EPOCH) // timedelta(seconds=1))
    if isinstance(value, date):
        return ((value - date(1970, 1, 1)).days + 1) * 86400.0
    raise Refused(f"must be {_FORM}")


def _read(text: str) -> date:
    reading = date if _DATE.match(text) else datetime if _TIME.match(text) else None
    if reading is None:
        raise Refused(f"must be {_FORM}")
    try:
        return reading.fromisoformat(text.upper())
    except ValueError as error:
        raise Refused(f"there is no such date or time; write {_FORM}") from error
