"""Buckets of durations: what latency is counted by.

The bucket of a duration is the integer part of log(duration in µs) to the base 1.02, so a bucket is 2 % wide
and its middle is within 1 % of each of its durations. Counts by bucket add up, over any time and any number
of stores, and every quantile can be read from them. An hour is in bucket 1,111.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

RATIO: Final = 1.02
LOG_RATIO: Final = math.log(RATIO)
NOTHING: Final = -1
"""The bucket of durations below 1 µs, which have no logarithm."""


def bucket_of(duration_us: int) -> int:
    """The bucket of a duration in µs: 0 for 1 µs, ``NOTHING`` for less."""
    return int(math.log(duration_us) / LOG_RATIO) if duration_us >= 1 else NOTHING


def first_of(bucket: int) -> int:
    """The smallest whole number of µs in a bucket, or in the next that holds one; bucket 1 holds none."""
    return math.ceil(RATIO**bucket) if bucket > NOTHING else 0


def last_of(bucket: int) -> int:
    """The largest whole number of µs in a bucket; in the last before it that does."""
    return first_of(bucket + 1) - 1 if bucket > NOTHING else 0


@lru_cache(maxsize=4096)
def middle_of(bucket: int) -> float:
    """The duration in µs that stands for a bucket: within 1 % of every whole number of µs in it."""
    return (first_of(bucket) + last_of(bucket)) / 2
