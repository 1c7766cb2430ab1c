from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from wherefrom._units import (
    age_ms,
    counted,
    duration,
    full_moment,
    local_time,
    short_moment,
    size,
    spoken_moment,
)


@pytest.fixture
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, "0 µs"),
        (999_499, "999 µs"),
        (999_500, "1.00 ms"),
        (12_345_678, "12.3 ms"),
        (999_499_999, "999 ms"),
        (999_500_000, "1.00 s"),
        (59_940_000_000, "59.9 s"),
        (59_960_000_000, "1 min 00 s"),
        (125_000_000_000, "2 min 05 s"),
        (3_600_000_000_000, "1 h 00 min"),
        (11_220_000_000_000, "3 h 07 min"),
        (-5_000_000, "-5.00 ms"),
    ],
)
def test_durations_have_three_digits_and_a_unit(ns: float, shown: str) -> None:
    assert duration(ns) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.50 kB"),
        (999_600, "1.00 MB"),
        (2_100_000_000, "2.10 GB"),
        (5 * 10**15, "5,000.0 TB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.usefixtures("_in_berlin")
def test_moments_are_local_and_as_short_as_they_may_be() -> None:
    now = datetime.fromisoformat("2026-11-23T15:00:00+01:00")
    assert short_moment(1_795_442_602_123, now) == "15:03:22"
    assert short_moment(1_790_000_000_000, now) == "Sep 21 16:13"
    assert short_moment(1_700_000_000_000, now) == "2023-11-14"
    assert full_moment(1_795_442_602_123) == "2026-11-23T15:03:22.123+01:00"
    assert spoken_moment(1_795_442_602_003) == "2026-11-23 15:03:22.003 CET"


@pytest.mark.parametrize("ms", [10**18, -(10**18), 10**30])
def test_moments_beyond_any_calendar_are_numbers(ms: int) -> None:
    now = datetime.fromisoformat("2026-11-23T15:00:00+01:00")
    assert local_time(ms) is None
    assert all(str(ms) in shown for shown in (short_moment(ms, now), full_moment(ms), spoken_moment(ms)))


def test_counts() -> None:
    assert [counted(number, "trace") for number in (0, 1, 1234)] == ["0 traces", "1 trace", "1,234 traces"]
    assert [counted(number, "process", "processes") for number in (1, 2)] == ["1 process", "2 processes"]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90s", 90_000),
        ("30m", 1_800_000),
        ("1.5h", 5_400_000),
        (" 30 d ", 2_592_000_000),
        ("4w", 2_419_200_000),
    ],
)
def test_ages(text: str, ms: int) -> None:
    assert age_ms(text) == ms


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "0d", "0.0001s", "3 days", "٣d", "1e3s", "1..5h"])
def test_what_is_no_age(text: str) -> None:
    assert age_ms(text) is None
