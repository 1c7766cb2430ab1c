"""How durations are spread: counts in steps of equal ratio, the same for all that are compared."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from .intervals import quantile
from .significance import Sample

STEPS: Final = 32
# One trace in a thousand at each end must not squeeze all the others together.
_ENDS: Final = (0.001, 0.999)
_LEAST_RATIO: Final = 1.5


def make_edges(samples: Iterable[Sample]) -> tuple[float, ...]:
    """The bounds of the steps, in µs, ascending; none where there are no durations."""
    ends = [[quantile(sample, share) for share in _ENDS] for sample in samples if sample]
    if not ends:
        return ()
    low = max(1.0, min(low for low, _ in ends))
    high = max(low * _LEAST_RATIO, *(high for _, high in ends))
    each = (high / low) ** (1 / STEPS)
    return tuple(low * each**step for step in range(STEPS + 1))


def count_steps(sample: Sample, edges: Sequence[float]) -> tuple[int, ...]:
    """How many values fall into each step; the first and the last take those beyond them too."""
    if not edges:
        return ()
    places = [bisect_left(sample, math.ceil(edge)) for edge in edges[1:-1]]
    return tuple(high - low for low, high in zip([0, *places], [*places, len(sample)], strict=True))
