"""Dates, times and their ranges in match keys (PS3.4 §C.2.2.2.5, PS3.5 §6.2)."""

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dates import combine, parse_date_range, parse_date_time_range, parse_time_range
from storage.catalogue.query import Interval


@pytest.mark.parametrize(
    ("text", "low", "high", "is_range"),
    [
        ("20240229", "20240229", "20240229", False),
        ("2024.02.29", "20240229", "20240229", False),
        ("19700102-20261121", "19700102", "20261121", True),
        ("20240101-", "20240101", None, True),
        ("-20240101", None, "20240101", True),
        (" 20240101 - 20240102 ", "20240101", "20240102", True),
        ("20240102-20240101", "20240102", "20240101", True),
        ("2024.01.01-20240102", "20240101", "20240102", True),
    ],
)
def test_dates_and_ranges_of_dates(text, low, high, is_range):
    read = parse_date_range(text)

    assert (read.interval, read.is_range) == (Interval(low, high), is_range)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("10", "100000.000000", "105959.999999"),
        ("1030", "103000.000000", "103059.999999"),
        ("103015", "103015.000000", "103015.999999"),
        ("103015.5", "103015.500000", "103015.599999"),
        ("103015.123456", "103015.123456", "103015.123456"),
        ("10:30:15", "103015.000000", "103015.999999"),
        ("235960", "235960.000000", "235960.999999"),
        ("10-12", "100000.000000", "125959.999999"),
        ("1030-", "103000.000000", None),
        ("-10", None, "105959.999999"),
    ],
)
def test_a_time_covers_all_that_its_precision_does(text, low, high):
    assert parse_time_range(text).interval == Interval(low, high)


@pytest.mark.parametrize(
    ("text", "low", "high", "is_range", "has_zone"),
    [
        ("2024", "20240101000000.000000", "20241231235959.999999", False, False),
        ("202402", "20240201000000.000000", "20240229235959.999999", False, False),
        ("20240229", "20240229000000.000000", "20240229235959.999999", False, False),
        ("2024022910", "20240229100000.000000", "20240229105959.999999", False, False),
        ("20240229101112.5", "20240229101112.500000", "20240229101112.599999", False, False),
        ("20240229101112-0500", "20240229101112.000000", "20240229101112.999999", False, True),
        ("2024-0500", "20240101000000.000000", "20241231235959.999999", False, True),
        ("2024-2025", "20240101000000.000000", "20251231235959.999999", True, False),
        ("2023-0500-2024+0100", "20230101000000.000000", "20241231235959.999999", True, True),
        ("20230101-0500-", "20230101000000.000000", None, True, True),
        ("20230101-", "20230101000000.000000", None, True, False),
        ("-2024", None, "20241231235959.999999", True, False),
        ("20230101-20240101", "20230101000000.000000", "20240101235959.999999", True, False),
    ],
)
def test_date_times_with_zones_whose_hyphen_is_no_range(text, low, high, is_range, has_zone):
    read = parse_date_time_range(text)

    assert (read.interval, read.is_range, read.has_zone) == (Interval(low, high), is_range, has_zone)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse, text)
        for parse in (parse_date_range, parse_time_range, parse_date_time_range)
        for text in ("", "-", "--", "abc", "20240101*", "٢٠٢٤٠١٠١", "20240101\n-x", "9" * 100, "20240101,20240102")
    ]
    + [
        (parse_date_range, text)
        for text in ("2024", "202401", "20240230", "20230229", "20241301", "00000101", "2024.0101")
    ]
    + [(parse_date_range, "20240101-20240102-20240103"), (parse_date_range, "2024-01-01")]
    + [(parse_time_range, text) for text in ("24", "1060", "103061", "1", "103", "10.5", "1030.5", "103015.1234567")]
    + [
        (parse_date_time_range, text) for text in ("20241", "20240230", "202413", "2024010124", "2024010110.5", "2024x")
    ],
)
def test_what_is_no_date_is_refused_without_repeating_it(parse, text):
    with pytest.raises(ValueError) as caught:
        parse(text)

    assert text not in str(caught.value) or len(text) < 3


@given(st.dates(), st.dates())
def test_every_range_of_dates_is_read_as_written(first, last):
    text = f"{first:%Y%m%d}".rjust(8, "0"), f"{last:%Y%m%d}".rjust(8, "0")

    assert parse_date_range("-".join(text)).interval == Interval(*text)


@given(st.datetimes(), st.integers(1, 7))
def test_a_date_time_lies_in_the_interval_of_each_of_its_precisions(moment, digits):
    full = f"{moment.year:04}{moment:%m%d%H%M%S.%f}"
    text = full[: (4, 6, 8, 10, 12, 14, 21)[digits - 1]]

    interval = parse_date_time_range(text).interval

    assert interval.low <= full <= interval.high


@given(st.integers(1, 9998), st.integers(1, 12))
def test_a_month_ends_just_before_the_next_one(year, month):
    interval = parse_date_time_range(f"{year:04}{month:02}").interval

    last = date(int(interval.high[:4]), int(interval.high[4:6]), int(interval.high[6:8]))
    assert last + timedelta(days=1) == datetime(year + month // 12, month % 12 + 1, 1).date()


@given(st.text(alphabet="0123456789-+.: ", max_size=40))
def test_no_digits_break_a_parser(text):
    for parse in (parse_date_range, parse_time_range, parse_date_time_range):
        try:
            parse(text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("days", "hours", "low", "high"),
    [
        (
            ("20240101", "20240103"),
            ("100000.000000", "115959.999999"),
            "20240101100000.000000",
            "20240103115959.999999",
        ),
        (("20240101", None), ("100000.000000", "115959.999999"), "20240101100000.000000", None),
        ((None, "20240103"), ("100000.000000", "115959.999999"), None, "20240103115959.999999"),
        (("20240101", "20240103"), (None, "115959.999999"), "20240101000000.000000", "20240103115959.999999"),
        (("20240101", "20240103"), ("100000.000000", None), "20240101100000.000000", "20240103235959.999999"),
    ],
)
def test_open_ends_of_a_combined_range(days, hours, low, high):
    assert combine(Interval(*days), Interval(*hours)) == (low, high)
