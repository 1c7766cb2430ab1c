"""Copies the traces of one store to another, and compares what both then hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import orjson

from .analysis.scope import opened
from .analysis.tail import in_steps
from .exceptions import StoreError
from .exporters.delivery import deliver
from .model import Trace
from .model.record import FIELDS, SPAN_FIELDS, encode
from .stores import Store

_MOST_NAMED: Final = 20
_DIGEST_BYTES: Final = 16
_VALUES: Final = ("inputs", "outputs")  # JSON in a text, whose order of keys says nothing


@dataclass(slots=True)
class Content:
    """A number of traces, and a digest of all that they hold, which does not depend on their order."""

    traces: int = 0
    _sum: int = 0

    def add(self, fields: dict[str, Any]) -> None:
        """Add a trace."""
        text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
        digest = int.from_bytes(blake2b(text, digest_size=_DIGEST_BYTES).digest(), "big")
        self.traces += 1
        self._sum = (self._sum + digest) % (1 << 8 * _DIGEST_BYTES)

    @property
    def digest(self) -> str:
        """32 hex."""
        return f"{self._sum:0{2 * _DIGEST_BYTES}x}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A trace that is not the same in both stores, and why."""

    trace_id: str
    reason: str


@dataclass(slots=True)
class Copy:
    """What has been copied and compared; ``done`` is the share of the source, from 0 to 1.

    ``written`` traces were not in the target, or not the same; it ``refused`` others. ``differences`` are
    the first 20 of all ``differing`` ones, which the target does not hold as the source does.
    """

    written: int = 0
    refused: int = 0
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)
    source: Content = field(default_factory=Content)
    target: Content = field(default_factory=Content)
    done: float = 0.0

    def differ(self, trace_id: str, reason: str) -> None:
        """Count a trace that is not the same in both."""
        self.differing += 1
        if len(self.differences) < _MOST_NAMED:
            self.differences.append(Difference(trace_id, reason))


def copy_traces(source: Store, target: Store) -> Iterator[Copy]:
    """Write the traces that the target does not hold as the source does; yield the state after each step.

    All traces that are stored when it begins are copied, some at a time, and read back from the target.
    A copy that was interrupted goes on when it is made again: what is there is compared, not written.

    Raises:
        StoreError: both are the same store, or there is no source.
        StoreUnavailableError: a store is out of reach, also after some ten seconds.
    """
    if _is_same(source, target):
        raise StoreError(f"traces are copied from one store to another, and {source.url} was given twice")
    if source.missing() is not None:
        raise StoreError(f"there are no traces to copy: {source.url} does not exist")
    target.upgrade()  # a target out of reach fails before the source is read
    copy = Copy()
    for step in in_steps(source):
        _take(step.traces, target, copy)
        copy.done = step.done
        yield copy


def _is_same(first: Store, second: Store) -> bool:
    if first.path is None or second.path is None:
        return first.url == second.url
    if first.path.exists() and second.path.exists():
        return first.path.samefile(second.path)
    return first.path == second.path


def _take(traces: Sequence[Trace], target: Store, copy: Copy) -> None:
    wanted = {trace.info.trace_id: _fields(trace) for trace in traces}
    found = _read(target, list(wanted))
    changed = [trace for trace in traces if found.get(id_ := trace.info.trace_id) != wanted[id_]]
    refused = {each.trace_id: each.reason for each in deliver(target, changed)}
    if changed:
        found |= _read(target, [trace.info.trace_id for trace in changed])
    copy.written += len(changed) - len(refused)
    copy.refused += len(refused)
    for trace_id, fields in wanted.items():
        there = found.get(trace_id)
        copy.source.add(fields)
        if there is not None:
            copy.target.add(there)
        if there != fields:
            copy.differ(trace_id, refused.get(trace_id) or _reason(fields, there))


def _read(store: Store, trace_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the store holds of these traces, by id."""
    with opened(store) as (snapshot, _):
        return {trace.info.trace_id: _fields(trace) for trace in snapshot.read(snapshot.find(trace_ids))}


def _fields(trace: Trace) -> dict[str, Any]:
    """What a store keeps of a trace, in one form whatever order the store reads it in."""
    data, _ = encode(trace)
    fields = dict(zip(FIELDS, orjson.loads(data), strict=True))
    spans = [dict(zip(SPAN_FIELDS, span, strict=True)) for span in fields["spans"]]
    for span in spans:
        span |= {name: orjson.loads(span[name]) for name in _VALUES if span[name] is not None}
    fields["spans"] = sorted(spans, key=lambda span: (span["start_ns"], span["span_id"]))
    fields["feedback"] = [assessment.to_dict() for assessment in trace.info.assessments]
    return fields


def _reason(wanted: dict[str, Any], found: dict[str, Any] | None) -> str:
    if found is None:
        return "the target does not have it"
    names = [name.replace("_", " ") for name in wanted if wanted[name] != found[name]]
    return f"the target has other values of: {', '.join(names)}"
