"""``TraceClient`` reads, tags, assesses and deletes traces, with the methods of MLflow's client."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self, TypeGuard

from . import keys
from ._capture.values import clean_text
from .exceptions import FilterError, InvalidTraceError, TraceNotFoundError
from .model import Assessment, Trace, new_assessment, new_feedback
from .process import ProcessReport
from .query.experiments import search_experiments
from .query.fields import Operator, find_field
from .query.order import (
    NEWEST_FIRST,
    PagedList,
    check_max_results,
    decode_token,
    encode_token,
    parse_order,
)
from .query.parser import parse_filter
from .query.tree import Compare
from .query.values import is_storable
from .stores import Selection, Store
from .stores.opening import locate

__all__ = ["KnownExperiment", "KnownSource", "PagedList", "TraceClient", "get_trace", "search_traces"]

_LOG = logging.getLogger("wherefrom")

MAX_TAG_LENGTH: Final = 8000  # MLflow's limit
_MAX_KEY_LENGTH: Final = 250  # MLflow's limit
_HEX_ID: Final = re.compile(r"(?:tr-)?([0-9a-f]{32})", re.IGNORECASE)
_REQUEST_ID: Final = find_field(None, "client_request_id")
_OFFSET: Final = re.compile(r"[0-9]{1,9}")
_CHANGEABLE: Final = frozenset({"name", "value", "rationale", "error", "metadata"})
_TAG_KEY: Final = re.compile(r"[\w\-. :/]+")
_FIXED_TAGS: Final = frozenset({keys.OS_USER, "mlflow.artifactLocation", keys.SPANS_LOCATION_TAG})


@dataclass(frozen=True, slots=True)
class KnownSource:
    """The metadata of a process, and its traces; times in ms since the epoch."""

    metadata: dict[str, str]
    traces: int
    first_seen: int
    last_seen: int


@dataclass(frozen=True, slots=True)
class KnownExperiment:
    """An experiment of the store: its id, which increases with later ones, and its name."""

    id: int
    name: str


class TraceClient:
    """Reads and edits the traces of a store.

    ``store`` is a store or its URL, by default that of the settings; it is opened when it is first needed.
    ``close``, or the end of a ``with`` block, closes a store that the client has opened.
    """

    def __init__(self, store: Store | str | None = None) -> None:
        self._given = store
        self._opened: Store | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store if this client opened it."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def search_traces(
        self,
        experiment_ids: Sequence[str | int] | None = None,
        filter_string: str | None = None,
        max_results: int = 100,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
        *,
        include_spans: bool = True,
    ) -> PagedList[Trace]:
        """A page of the traces that match the filter, by default the newest first.

        ``experiment_ids`` are names; without them all experiments are searched. ``max_results`` is 1 to
        50,000. ``page_token`` is the ``token`` of the previous page in the same order.
        ``include_spans=False`` leaves the spans out, which is faster.

        Raises:
            FilterError: the filter, the order, the token or the number is invalid.
        """
        given = [experiment_ids] if isinstance(experiment_ids, (str, int)) else experiment_ids
        limit = check_max_results(max_results)
        with self._store().snapshot() as snapshot:
            tree = parse_filter(filter_string, snapshot.spelled_keys)
            order = parse_order(order_by, snapshot.spelled_keys)
            after = decode_token(page_token, order) if page_token else None
            selection = Selection(tree, tuple(map(str, given)) if given else None)
            page = snapshot.search(selection, order, limit, after)
            found = snapshot.read(page.keys, include_spans=include_spans)
            return PagedList(found, None if page.after is None else encode_token(order, page.after))

    def get_trace(self, trace_id: str) -> Trace:
        """The trace with this id, or else the newest one with this request id.

        The hex digits of a trace id are enough: ``tr-`` may be missing, as in logs of OpenTelemetry.

        Raises:
            TraceNotFoundError: there is none.
        """
        if _is_text(trace_id):
            digits = _HEX_ID.fullmatch(trace_id)
            spellings = [trace_id, *([f"tr-{digits[1].lower()}"] if digits else [])]
            by_request = Selection(Compare(_REQUEST_ID, Operator.EQ, trace_id))
            with self._store().snapshot() as snapshot:
                found = snapshot.find(spellings) or snapshot.search(by_request, NEWEST_FIRST, 1).keys
                if found:
                    return snapshot.read(found[:1])[0]
        raise TraceNotFoundError(f"no trace has the id {trace_id!r}, and none has it as its request id")

    def get_traces(self, trace_ids: Sequence[str], *, include_spans: bool = True) -> list[Trace]:
        """The traces with these ids, in the same order; missing ones are left out."""
        wanted = [trace_id for trace_id in trace_ids if _is_text(trace_id)]
        with self._store().snapshot() as snapshot:
            return snapshot.read(snapshot.find(wanted), include_spans=include_spans)

    def set_trace_tag(self, trace_id: str, key: str, value: Any) -> None:
        """Set a tag, its value truncated to 8,000 characters; tags that MLflow fixes are not changed.

        Raises:
            TraceNotFoundError: there is no such trace.
            InvalidTraceError: the key is empty, too long, or not only letters, digits and ``_-. :/``.
        """
        if not _is_text(key) or len(key) > _MAX_KEY_LENGTH or not _TAG_KEY.fullmatch(key):
            raise InvalidTraceError(
                f"{key!r} is no key for a tag: 1 to {_MAX_KEY_LENGTH} letters, digits, blanks and _-.:/ are"
            )
        if _is_fixed(key):
            return
        text = clean_text(value)
        if len(text) > MAX_TAG_LENGTH:
            _LOG.warning("tag %s has %d characters; it is cut to %d", key, len(text), MAX_TAG_LENGTH)
            text = text[:MAX_TAG_LENGTH]
        self._store().set_tag(_checked_id(trace_id), key, text)

    def delete_trace_tag(self, trace_id: str, key: str) -> None:
        """Remove a tag.

        Raises:
            TraceNotFoundError: there is no such trace, or it has no such tag.
        """
        if not _is_text(key):
            raise TraceNotFoundError(f"trace {trace_id} has no tag {key!r}")
        if _is_fixed(key):
            return
        self._store().delete_tag(_checked_id(trace_id), key)

    def log_feedback(
        self,
        trace_id: str,
        name: str,
        value: object,
        *,
        span_id: str | None = None,
        comment: str | None = None,
        source: object = None,
    ) -> Assessment:
        """Store feedback on a trace and return it; the arguments are those of ``wherefrom.log_feedback``.

        Raises:
            InvalidTraceError: an argument cannot be used; the message names it and what it takes.
            StoreUnavailableError: not now.
        """
        feedback = new_feedback(trace_id, name, value, span_id=span_id, comment=comment, source=source)
        return self.log_assessment(feedback)

    def log_assessment(self, assessment: Assessment) -> Assessment:
        """Store feedback or an expectation and return it. The one that it overrides becomes invalid.

        Raises:
            TraceNotFoundError: there is none with the id in ``overrides``.
        """
        changed = [assessment]
        if assessment.overrides is not None:
            old = self.get_assessment(assessment.trace_id, assessment.overrides)
            changed.append(replace(old, valid=False))
        self._store().write_assessments(changed)
        return assessment

    def get_assessment(self, trace_id: str, assessment_id: str) -> Assessment:
        """Feedback or an expectation by its id.

        Raises:
            TraceNotFoundError: the trace has none with this id.
        """
        for one in self.get_assessments([trace_id]).get(trace_id, ()):
            if one.assessment_id == assessment_id:
                return one
        raise TraceNotFoundError(f"trace {trace_id} has no feedback {assessment_id!r}")

    def get_assessments(self, trace_ids: Sequence[str]) -> dict[str, list[Assessment]]:
        """The feedback and expectations of traces, by trace id, the oldest first.

        They may be there before their trace has been written.
        """
        wanted = [trace_id for trace_id in trace_ids if _is_text(trace_id)]
        with self._store().snapshot() as snapshot:
            return snapshot.assessments(wanted)

    def update_assessment(self, trace_id: str, assessment_id: str, **changes: Any) -> Assessment:
        """Change parts of feedback or an expectation, and return it as it is then.

        ``changes`` are ``name``, ``value``, ``rationale``, ``error`` and ``metadata``, which is added to what
        there is.

        Raises:
            TraceNotFoundError: the trace has none with this id.
            InvalidTraceError: a part cannot be used; the message names it and what it takes.
        """
        old = self.get_assessment(trace_id, assessment_id)
        if unknown := changes.keys() - _CHANGEABLE:
            raise InvalidTraceError(f"{min(unknown)} of feedback cannot be changed")
        given = {"name": old.name, "value": old.value, "rationale": old.rationale, "error": old.error}
        metadata = old.metadata | dict(changes.pop("metadata", None) or {})
        new = new_assessment(trace_id, **{**given, **changes}, metadata=metadata)
        kept = replace(
            old,
            name=new.name,
            value=new.value,
            rationale=new.rationale,
            error=new.error,
            metadata=new.metadata,
            last_update_time_ms=new.last_update_time_ms,
        )
        self._store().write_assessments([kept])
        return kept

    def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        """Remove feedback or an expectation. The one that it overrides becomes valid again.

        Raises:
            TraceNotFoundError: the trace has none with this id.
        """
        doomed = self.get_assessment(trace_id, assessment_id)
        others = self.get_assessments([trace_id])[trace_id]
        restored = [replace(one, valid=True) for one in others if one.assessment_id == doomed.overrides]
        self._store().delete_assessment(trace_id, assessment_id)
        if restored:
            self._store().write_assessments(restored)

    def delete_traces(
        self,
        experiment_id: str | int,
        max_timestamp_millis: int | None = None,
        max_traces: int | None = None,
        trace_ids: Sequence[str] | None = None,
    ) -> int:
        """Delete traces of an experiment; return how many.

        Either those with ``trace_ids``, or those that started no later than ``max_timestamp_millis``, the
        oldest first and at most ``max_traces``. Comparisons count them no more; without ``max_traces``, they
        count no trace either that retention has deleted, in whole hours up to that time.

        Raises:
            FilterError: both or neither are given, or ``max_traces`` is given with ``trace_ids``.
        """
        if (max_timestamp_millis is None) == (trace_ids is None):
            raise FilterError("delete_traces takes either max_timestamp_millis or trace_ids")
        if max_traces is not None and (trace_ids is not None or max_traces < 1):
            raise FilterError("max_traces is 1 or more, and goes with max_timestamp_millis alone")
        if not all(number is None or is_storable(number) for number in (max_timestamp_millis, max_traces)):
            raise FilterError("max_timestamp_millis and max_traces take integers of at most 64 bits")
        given = None if trace_ids is None else [trace_id for trace_id in trace_ids if _is_text(trace_id)]
        return self._store().delete(
            clean_text(str(experiment_id)), trace_ids=given, until_ms=max_timestamp_millis, limit=max_traces
        )

    def list_keys(self, family: str = "metadata") -> list[str]:
        """The keys that traces carry, or the names of their feedback.

        ``family`` is ``metadata``, ``tag``, ``span`` (span attributes), ``feedback`` or ``expectation``.
        """
        if not _is_text(family):
            return []
        with self._store().snapshot() as snapshot:
            return snapshot.keys(family)

    def search_experiments(
        self,
        filter_string: str | None = None,
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[KnownExperiment]:
        """A page of the experiments of stored traces, the latest first.

        A filter can use ``name``; ``order_by`` takes ``name``, ``experiment_id`` and ``creation_time``.

        Raises:
            FilterError: the filter, the order, the token or the number is invalid.
        """
        limit, start = check_max_results(max_results), _offset(page_token)
        with self._store().snapshot() as snapshot:
            found = search_experiments(snapshot.experiments(), filter_string, order_by)
        page = [KnownExperiment(*row) for row in found[start : start + limit]]
        return PagedList(page, str(start + limit) if len(found) > start + limit else None)

    def list_sources(self) -> list[KnownSource]:
        """The metadata of all processes that have sent traces, the one with the latest trace first."""
        with self._store().snapshot() as snapshot:
            return [
                KnownSource(dict(row.metadata), row.traces, row.first_seen, row.last_seen)
                for row in snapshot.sources(Selection(), None)
            ]

    def list_processes(self) -> list[ProcessReport]:
        """The last report of each process that writes to the store, the newest first."""
        with self._store().snapshot() as snapshot:
            return snapshot.processes()

    def _store(self) -> Store:
        if self._given is not None and not isinstance(self._given, str):
            return self._given
        with self._lock:
            if self._opened is None:
                self._opened = locate(self._given)
            return self._opened


def search_traces(
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    max_results: int = 100,
    order_by: Sequence[str] | None = None,
    page_token: str | None = None,
) -> PagedList[Trace]:
    """A page of the traces in the configured store; ``experiment`` is a name, by default all experiments.

    Raises:
        FilterError: the filter, the order, the token or the number is invalid.
    """
    names = None if experiment is None else [experiment]
    with TraceClient() as client:
        return client.search_traces(names, filter_string, max_results, order_by, page_token)


def get_trace(trace_id: str) -> Trace:
    """The trace with this id in the configured store, or else the newest one with this request id.

    Raises:
        TraceNotFoundError: there is none.
    """
    with TraceClient() as client:
        return client.get_trace(trace_id)


def _offset(token: object) -> int:
    if not token:
        return 0
    if not isinstance(token, str) or not _OFFSET.fullmatch(token):
        raise FilterError("this page_token is not one that a search returned")
    return int(token)


def _checked_id(trace_id: object) -> str:
    if not _is_text(trace_id):
        raise TraceNotFoundError(f"no trace has the id {trace_id!r}")
    return trace_id


def _is_text(value: object) -> TypeGuard[str]:
    """Whether a store can hold the value as text; if not, no trace has it."""
    return isinstance(value, str) and clean_text(value) == value


def _is_fixed(key: str) -> bool:
    if key in _FIXED_TAGS:
        _LOG.warning("tag %s cannot be changed; it is left as it is", key)
    return key in _FIXED_TAGS
