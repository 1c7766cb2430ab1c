"""Parts of a trace: what a service records that continues its caller's trace.

The root span of a part has a parent, in another service. It carries the source of its service as an
attribute. A span without one is of the service of its nearest ancestor that has it, or of the one that began
the trace. The metadata ``wherefrom.part`` names the part that stands for a trace: stores replace it when a
record comes that precedes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import orjson

from .. import keys
from .record import split
from .span import Span
from .trace import Source, Trace, TraceInfo

EXPERIMENT: Final = "experiment"
"""The key of the experiment among the pairs of a service."""


def mark_part(info: TraceInfo, root: Span) -> None:
    """Mark a trace that a caller began as the part of its service."""
    info.trace_metadata[keys.PART] = root.span_id
    instance = info.trace_metadata.get(keys.INSTANCE_ID, "")
    root.attributes[keys.PART_SOURCE] = part_source(split(info)[0], info.experiment, instance)


@lru_cache(maxsize=1_000)
def part_source(source: Source, experiment: str, instance: str) -> str:
    """The attribute ``wherefrom.source`` of a service."""
    pairs = {**source.pairs, EXPERIMENT: experiment, keys.INSTANCE_ID: instance}
    return orjson.dumps({key: value for key, value in pairs.items() if value}).decode()


def precedence(request_time: int, part: str | None) -> tuple[int, int, str]:
    """What sorts the records of one trace: the one of who began it is first, then the earliest part.

    ``part`` is the metadata ``wherefrom.part``.
    """
    return (0, 0, "") if part is None else (1, request_time, part)


def services_of(trace: Trace) -> dict[str, dict[str, str]]:
    """The source, experiment and instance of the service of each span, by span id; empty without parts."""
    marked = [span for span in trace.data.spans if keys.PART_SOURCE in span.attributes]
    pairs = {span.span_id: found for span in marked if (found := _pairs_of(span)) is not None}
    if not pairs:
        return {}
    metadata = trace.info.trace_metadata
    names = keys.SOURCE_KEYS.union(trace.info.source or (), (keys.INSTANCE_ID,))
    own = {key: value for key, value in metadata.items() if key in names}
    own[EXPERIMENT] = trace.info.experiment
    parents = {span.span_id: span.parent_id for span in trace.data.spans}
    for span in trace.data.spans:
        path = list(_above(span.span_id, parents, pairs))
        found = pairs.get(path[-1], own)
        pairs.update(dict.fromkeys(path, found))
    return pairs


def _above(span_id: str, parents: Mapping[str, str | None], known: Mapping[str, object]) -> Iterable[str]:
    """The span and its ancestors, up to the first that is known; a cycle is followed once."""
    path: dict[str, None] = {}
    place: str | None = span_id
    while place is not None and place in parents and place not in path:
        path[place] = None
        if place in known:
            break
        place = parents[place]
    return path


def _pairs_of(span: Span) -> dict[str, str] | None:
    """The source in the attribute of a span, which anybody may have written."""
    text = span.attributes[keys.PART_SOURCE]
    if not isinstance(text, str):
        return None
    try:
        pairs = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(pairs, dict):
        return None
    return {key: value for key, value in pairs.items() if isinstance(value, str)}
