"""The services of a trace that several recorded: what tells them apart, and which one each span is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .. import keys
from ..model import Trace
from ..model.parts import EXPERIMENT, services_of

_DETAILS: Final = (EXPERIMENT, keys.APP_VERSION, keys.DEPLOYMENT_ID, keys.INSTANCE_ID)
"""What tells services apart that have one name: the first of these in which they differ."""
_SHORT: Final = 8  # characters of an instance


@dataclass(frozen=True, slots=True)
class Service:
    """One process of a trace; ``name`` is unique among those of the trace, unless nothing tells two apart.

    ``spans`` is the number of its spans. What is not known is ``None``.
    """

    name: str
    spans: int
    version: str | None
    deployment: str | None
    commit: str | None
    instance: str | None


def services_in(trace: Trace) -> tuple[list[Service], dict[str, str]]:
    """The services of a trace, in the order of their first spans, and the name of the service of each span.

    Both are empty if one service recorded all of it.
    """
    of_spans = {span_id: frozenset(pairs.items()) for span_id, pairs in services_of(trace).items()}
    if not of_spans:
        return [], {}
    in_order = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
    counts = Counter(of_spans[span.span_id] for span in in_order if span.span_id in of_spans)
    if len(counts) < 2:
        return [], {}
    every = {key: dict(key) for key in counts}
    names = dict(zip(every, _names(list(every.values())), strict=True))
    services = [
        Service(
            names[key],
            counts[key],
            pairs.get(keys.APP_VERSION),
            pairs.get(keys.DEPLOYMENT_ID),
            pairs.get(keys.GIT_COMMIT),
            pairs.get(keys.INSTANCE_ID),
        )
        for key, pairs in every.items()
    ]
    return services, {span_id: names[key] for span_id, key in of_spans.items()}


def _names(services: Sequence[Mapping[str, str]]) -> list[str]:
    """The entry point of each, with what tells it from others of the same."""
    names = [pairs.get(keys.SOURCE_NAME) or pairs.get(EXPERIMENT) or "unknown" for pairs in services]
    found = []
    for name, pairs in zip(names, services, strict=True):
        same = [other for own, other in zip(names, services, strict=True) if own == name]
        details = [key for key in _DETAILS if [other.get(key) for other in same].count(pairs.get(key)) == 1]
        # Of a replica only the instance tells, and of several that differ in one thing not all do.
        detail = pairs.get(details[0]) if details and len(same) > 1 else None
        if detail is not None and details[0] == keys.INSTANCE_ID:
            detail = detail[:_SHORT]
        found.append(name if detail is None else f"{name} {detail}")
    return found
