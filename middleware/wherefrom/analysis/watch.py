"""A candidate that is compared again and again, until the verdict is sure or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from .. import keys
from .._clock import wall_ns
from ..exceptions import StoreUnavailableError
from ..stores import Store
from .comparison import STRATIFY, compare_candidate
from .results import Comparison, Row, Verdict
from .scope import opened
from .verdicts import sentence

_SURE: Final = frozenset({Verdict.WORSE, Verdict.BETTER})


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found, at ``at`` (ms since the epoch), with ``left_ms`` to go.

    ``against`` is the value that the candidate is compared with, ``None`` while there is none. ``traces`` are
    those of the candidate and of the other. ``text`` is a sentence.
    """

    at: int
    left_ms: int
    verdict: Verdict
    against: str | None
    traces: tuple[int, int]
    text: str

    @property
    def is_sure(self) -> bool:
        """Whether more traces would not change the verdict, but for a chance of 5 %."""
        return self.verdict in _SURE


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return wall_ns() // 1_000_000


def watch(
    store: Store,
    candidate: str,
    filter_string: str | None = None,
    *,
    for_ms: int,
    every_ms: int = 10_000,
    by: str = keys.APP_VERSION,
    baseline: str | None = None,
    experiment: str | None = None,
    stratify: str | None = STRATIFY,
    clock: Callable[[], int] = wall_ms,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[Look]:
    """Look every ``every_ms`` until the candidate is better or worse, at the longest for ``for_ms``.

    The tests are sequential: the chance that any of the looks is wrong is 5 %. Without a ``baseline``, the
    candidate is compared with the last value before it that has enough traces, the same in all looks. A look
    at a store that cannot be reached now is left out.

    Raises:
        FilterError: the filter is invalid, nothing is named ``by``, or no trace has the baseline.
        StoreError: the store cannot be read.
    """
    end = clock() + for_ms
    against = baseline
    while True:
        try:
            with opened(store, filter_string, experiment) as (snapshot, selection):
                found = compare_candidate(
                    snapshot, selection, candidate, by, baseline=against, stratify=stratify, sequential=True
                )
        except StoreUnavailableError:
            if clock() >= end:
                raise
        else:
            rows = {row.value: row for row in found.rows}
            if candidate in rows:
                against = rows[candidate].against
            look = _look(found, rows, candidate, clock(), end)
            yield look
            if look.is_sure or look.left_ms <= 0:
                return
        wait(max(0, min(every_ms, end - clock())) / 1000)


def _look(found: Comparison, rows: dict[str, Row], candidate: str, now: int, end: int) -> Look:
    row, other = rows.get(candidate), rows.get(found.baseline or "")
    traces = (row.traces if row else 0, other.traces if other else 0)
    verdict = Verdict.TOO_FEW if row is None or row.verdict is None else row.verdict
    if row is None:
        text = f"No trace has {found.by} {candidate!r} yet."
    elif row.verdict is None:
        text = f"There is no value of {found.by} before {candidate} to compare it with."
    else:
        text = sentence(row)
    return Look(now, max(0, end - now), verdict, found.baseline, traces, text)
