"""Buckets of durations, against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom._buckets import NOTHING, bucket_of, first_of, last_of, middle_of

FOUR_DAYS: int = 1341
"""Up to this bucket no whole number of µs is so near to a power of 1.02 that rounding decides."""


def test_buckets_are_powers_of_1_02_to_the_microsecond() -> None:
    """The first duration of each is the power rounded up, computed without floats."""
    power = Fraction(1)
    for bucket in range(FOUR_DAYS + 1):
        first = math.ceil(power)
        assert first_of(bucket) == first
        assert bucket_of(first) >= bucket
        assert bucket == 0 or bucket_of(first - 1) < bucket
        power *= Fraction(102, 100)


@pytest.mark.parametrize(
    ("duration_us", "bucket"),
    [
        (-5, NOTHING),
        (0, NOTHING),
        (1, 0),
        (2, 35),
        (3, 55),
        (1000, 348),
        (3_600_000_000, 1111),
        (2**63, 2205),
    ],
)
def test_buckets_of_durations(duration_us: int, bucket: int) -> None:
    assert bucket_of(duration_us) == bucket


@given(st.integers(0, 100) | st.integers(1, 2**63))
def test_the_middle_of_a_bucket_is_within_1_percent_of_its_durations(duration_us: int) -> None:
    bucket = bucket_of(duration_us)
    assert middle_of(bucket) == pytest.approx(duration_us, rel=0.01)
    assert duration_us <= last_of(bucket) * (1 + 1e-12)
    assert duration_us >= first_of(bucket) * (1 - 1e-12)


def test_short_durations_are_told_exactly() -> None:
    """Up to 50 µs a bucket holds one whole number of µs at most."""
    assert [middle_of(bucket_of(us)) for us in range(51)] == list(range(51))
