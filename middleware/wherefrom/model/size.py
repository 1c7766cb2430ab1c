"""How much memory recorded values take, about."""

from __future__ import annotations

from collections.abc import Iterable
from sys import getsizeof
from typing import Any, Final

_MOST_VALUES: Final = 20_000
_SCALAR: Final = 32


def memory_of(values: Iterable[Any]) -> int:
    """Bytes of memory that JSON values take, with all that they hold.

    Past 20,000 values the rest is taken to be like those: the time this takes is bounded, a cycle too.
    """
    found = list(values)
    total = largest = 0
    for seen, value in enumerate(found):  # it grows while it is walked
        if seen == _MOST_VALUES:
            return largest + (total - largest) * len(found) // seen
        kind = type(value)
        if kind is str or kind is bytes:
            total += getsizeof(value)
        elif kind is dict or kind is list or kind is tuple:
            size = getsizeof(value)
            total += size
            largest = max(largest, size)
            found += value
            if kind is dict:
                found += value.values()
        elif value is not None:
            total += _SCALAR
    return total
