"""Traces with known figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random

from wherefrom import Span, Trace, TraceInfo, TraceState, keys
from wherefrom.analysis.results import Group
from wherefrom.analysis.statistics import Sample
from wherefrom.model import OK, Source, TraceData

START = 1_700_000_000_000


def make_trace(
    number: int,
    *,
    version: str | None = None,
    source: Source | None = None,
    ms: float | None = 100,
    failed: bool = False,
    at: int | None = None,
    name: str = "GET /",
    experiment: str = "default",
    metadata: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Trace:
    """A trace of one span, the ``number``-th: they come in a second apart."""
    started = START + number * 1000 if at is None else at
    trace_id = f"tr-{number:032x}"
    if source is None and version is not None:
        source = Source({keys.APP_VERSION: version})
    info = TraceInfo(
        trace_id,
        experiment=experiment,
        request_time=started,
        execution_duration=None if ms is None else int(ms),
        state=TraceState.ERROR if failed else TraceState.OK,
        trace_metadata={**(source or {}), **(metadata or {})},
        tags={keys.TRACE_NAME_TAG: name, **(tags or {})},
        source=source,
    )
    root = Span(trace_id, f"{number + 1:016x}", None, name, "SERVER", started * 1_000_000)
    if ms is not None:
        root.end_time_ns, root.status = root.start_time_ns + round(ms * 1_000_000), OK
    return Trace(info, TraceData([root]))


def release(
    version: str, count: int, *, first: int = 0, errors: int = 0, ms: float = 100, spread: float = 0.5
) -> list[Trace]:
    """``count`` traces of a version with ``errors`` failures; durations are log-normal around ``ms``."""
    random = Random(f"{version}/{first}")
    failing = set(random.sample(range(count), errors))
    return [
        make_trace(
            first + place,
            version=version,
            ms=round(ms * random.lognormvariate(0, spread), 3),
            failed=place in failing,
        )
        for place in range(count)
    ]


def random_group(
    random: Random, count: int, error_rate: float, *, ms: float = 100, tail: float = 0, fail_ms: float = 0
) -> Group:
    """A group as it would have been read; the ``tail`` share of its traces take ten times as long."""
    ended: dict[bool, list[int]] = {True: [], False: []}
    for _ in range(count):
        failed = random.random() < error_rate
        slow = 10 if random.random() < tail else 1
        typical = fail_ms if failed and fail_ms else ms
        ended[failed].append(int(1000 * typical * slow * random.lognormvariate(0, 0.6)))
    return Group("some", count, len(ended[True]), 0, 1, Sample.of(ended[False]), Sample.of(ended[True]))


def durations(traces: Iterable[Trace]) -> list[float]:
    """The durations of the root spans in ms."""
    roots = (trace.data.spans[0] for trace in traces)
    return [((root.end_time_ns or 0) - root.start_time_ns) / 1_000_000 for root in roots]
