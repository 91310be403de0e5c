"""When rules end: read, written, refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netpolicy.policy import ends
from netpolicy.policy.problems import Refused

ZONE = timezone(timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    ("value", "moment", "written"),
    [
        ("2027-01-31", 1801440000.0, "2027-01-31"),
        (date(2027, 1, 31), 1801440000.0, "2027-01-31"),
        ("2027-02-01T00:00:00Z", 1801440000.0, "2027-01-31"),
        ("2027-01-31T23:59:59Z", 1801439999.0, "2027-01-31T23:59:59Z"),
        ("2027-01-31T23:59:59.999999999Z", 1801439999.0, "2027-01-31T23:59:59Z"),
        ("2027-01-31t18:00:00z", 1801418400.0, "2027-01-31T18:00:00Z"),
        ("2027-01-31 18:00:00-05:30", 1801438200.0, "2027-01-31T23:30:00Z"),
        (datetime(2027, 1, 31, 18, tzinfo=ZONE), 1801398600.0, "2027-01-31T12:30:00Z"),
        (datetime(2027, 1, 31, 18, 0, 0, 999999, tzinfo=UTC), 1801418400.0, "2027-01-31T18:00:00Z"),
        ("2000-01-01", 946771200.0, "2000-01-01"),
        ("9999-12-30", 253402214400.0, "9999-12-30"),
    ],
)
def test_a_moment_has_one_spelling(value: object, moment: float, written: str) -> None:
    assert ends.parse(value) == moment
    assert ends.written(moment) == written
    assert ends.parse(written) == moment


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("soon", "must be a date such as"),
        ("20270131", "must be a date such as"),
        ("2027-W04-7", "must be a date such as"),
        ("2027-01-31T18:00Z", "must be a date such as"),
        ("2027-01-31\n", "must be a date such as"),
        (1801440000, "must be a date such as"),
        (time(1), "must be a date such as"),
        ("2027-02-29", "there is no such date or time"),
        ("2027-01-31T23:59:60Z", "there is no such date or time"),
        ("2027-01-31T23:59:00+25:00", "there is no such date or time"),
        ("2027-01-31T23:59:00", "has no time zone; write 2027-01-31T23:59:00Z, or an offset such as +01:00"),
        (datetime(2027, 1, 31, 18), "has no time zone"),
        ("1999-12-30", "between the years 2000 and 9999"),
        ("0001-01-01T00:00:00+23:59", "between the years 2000 and 9999"),
        ("9999-12-31", "between the years 2000 and 9999"),
        ("9999-12-31T23:59:59-23:59", "between the years 2000 and 9999"),
    ],
)
def test_what_is_no_end_is_told_what_would_be_right(value: object, said: str) -> None:
    with pytest.raises(Refused) as refusal:
        ends.parse(value)
    assert said in str(refusal.value)


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)) | st.dates())
@example(datetime.max.replace(tzinfo=ZONE))
@example(datetime.min.replace(tzinfo=ZONE))
def test_any_date_is_read_back_or_refused(value: date) -> None:
    try:
        moment = ends.parse(value)
    except Refused:
        return
    assert ends.parse(ends.written(moment)) == moment
    if isinstance(value, datetime):
        assert 0 <= value.timestamp() - moment < 1
