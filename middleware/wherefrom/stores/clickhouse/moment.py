"""Moments: which traces had arrived, without transactions.

The server stamps what it inserts by its own clock, but an insert becomes visible a little later, and not in
the order of the stamps. So a moment is a time before which everything has settled, and the stamps that were
visible after it. A cursor is a moment, and on the way to another moment the place that was reached.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from ...exceptions import FilterError

SETTLED_NS: Final = 10_000_000_000
"""After so long an insert is visible, or it failed; the clocks of the servers differ by less."""
MOST_RECENT: Final = 500
"""So many stamps at most that are not settled."""
_BASE: Final = 36
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_NUMBER: Final = "[0-9a-z]{1,13}"
_MOMENT: Final = rf"{_NUMBER}(?:-{_NUMBER})*"
_CURSOR: Final = re.compile(
    rf"c({_NUMBER})\.({_MOMENT})(?:\.({_MOMENT})\.({_NUMBER})\.({_NUMBER}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Moment:
    """The traces stamped up to ``settled`` (ns since the epoch) or with one of the ``recent`` stamps."""

    settled: int = 0
    recent: tuple[int, ...] = ()

    @property
    def last(self) -> int:
        """The last stamp that may be visible."""
        return self.recent[-1] if self.recent else self.settled


@dataclass(frozen=True, slots=True)
class Cursor:
    """All traces up to ``seen``, and of those up to ``target`` the ones until ``reached`` (stamp, place)."""

    store: int
    seen: Moment
    target: Moment | None = None
    reached: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        parts = [f"c{_text(self.store)}", _moment_text(self.seen)]
        if self.target is not None:
            parts += [_moment_text(self.target), *map(_text, self.reached)]
        return ".".join(parts)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cursor that a text names.

        Raises:
            FilterError: it is not one that a store returned.
        """
        parts = _CURSOR.fullmatch(text)
        if parts is None:
            raise FilterError("this cursor is not one that a store returned")
        store, seen, target, stamp, place = parts.groups()
        if target is None:
            return cls(int(store, _BASE), _to_moment(seen))
        reached = _bounded(int(stamp, _BASE)), _bounded(int(place, _BASE))
        return cls(int(store, _BASE), _to_moment(seen), _to_moment(target), reached)


def _to_moment(text: str) -> Moment:
    settled, *later = (int(part, _BASE) for part in text.split("-"))
    stamps: list[int] = []
    for step in later:  # each is the distance from the one before
        stamps.append((stamps[-1] if stamps else settled) + step)
    return Moment(_bounded(settled), tuple(map(_bounded, stamps)))


def _moment_text(moment: Moment) -> str:
    times = (moment.settled, *moment.recent)
    steps = (later - earlier for earlier, later in pairwise(times))
    return "-".join(map(_text, (times[0], *steps)))


def _text(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, _BASE)
        digits = _DIGITS[digit] + digits
    return digits


def _bounded(number: int) -> int:
    return min(number, 2**63 - 1)
