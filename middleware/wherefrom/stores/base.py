"""The interface of a store: ``Store`` writes and edits, ``Snapshot`` reads at one consistent moment.

Code above this package reads through ``Snapshot``, with filter trees, fields and plain data. SQL, columns and
connections stay below it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson

from ..model import Assessment, Span, Trace, TraceInfo
from ..process import ProcessReport
from .deadline import Deadline

# The write half opens stores too, and never imports the query language.
if TYPE_CHECKING:
    from ..query.fields import Field
    from ..query.order import Key
    from ..query.tree import Node

STRETCH_MS: Final = 600_000
"""The stretch of time of a block in the counts of an hour; in those of a day it is ``HOUR_MS``."""
HOUR_MS: Final = 3_600_000

TraceKey = Any
"""How a store names a stored trace; valid within the snapshot that gave it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A set of traces.

    ``tree`` is a parsed filter (``None``: every trace). ``experiments`` are names (``None``: all
    experiments).
    """

    tree: Node | None = None
    experiments: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Traces in order; ``after`` has the sort values of the last one if there are more."""

    keys: list[TraceKey]
    after: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """Traces stored after a cursor, and the ``cursor`` for the next call.

    ``done`` is the share of the store that has been read, from 0 to 1.
    """

    keys: list[TraceKey]
    cursor: str
    done: float


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One trace without its spans.

    ``request_time`` is in ms since the epoch, ``duration_ms`` is ``None`` while the request runs.
    ``metadata`` does not include session and user, ``tags`` does not include the name.
    """

    trace_id: str
    experiment: str
    request_time: int
    duration_ms: float | None
    state: str
    name: str | None
    outcome: str | None
    http_status: int | None
    request_id: str | None
    session: str | None
    user: str | None
    request_preview: str | None
    response_preview: str | None
    metadata: dict[str, str]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens used, summed over the ``traces`` that recorded them."""

    traces: int
    input: int
    output: int
    total: int

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.traces + other.traces,
            self.input + other.input,
            self.output + other.output,
            self.total + other.total,
        )


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """The traces with one value of a field (``None``: without a value); times in ms since the epoch.

    ``succeeded`` and ``failed`` are the number of durations in each bucket. ``tokens`` is ``None`` if no
    trace recorded any, or if they were not asked for.
    """

    value: str | None
    traces: int
    errors: int
    first_seen: int
    last_seen: int
    succeeded: Mapping[int, int] = field(default_factory=dict)
    failed: Mapping[int, int] = field(default_factory=dict)
    tokens: Tokens | None = None


CODE: Final = 1 << 12
"""The traces of a bucket are one number: most are small, and quickly read."""


Numbers = list[int] | str
"""Integers, or the text of them with commas between: an array is made of it in half the time of a list's."""


def integers(numbers: Numbers) -> list[int]:
    """The integers in a list."""
    found: list[int] = orjson.loads(f"[{numbers}]") if isinstance(numbers, str) else numbers
    return found


class Durations(NamedTuple):
    """Durations by bucket of several blocks, in columns: block after block, and so many of each.

    ``alone`` has ``chr(bucket + ALONE)`` for each trace that is counted alone. ``codes`` has the others as
    ``traces * CODE + bucket + 1``. A block may have several of one bucket.
    """

    alone: str
    alone_each: Numbers
    codes: Numbers
    codes_each: Numbers


ALONE: Final = 2
"""What is added to a bucket to make a character of it: no store keeps the character 0."""


Stratum = tuple[str | None, str]
"""A value and a stratum of it, ``""`` for traces without one."""


class BlockColumns(NamedTuple):
    """Traces that are counted together by block, in columns: an element of each for each block.

    ``of_groups`` are the places of values and strata in ``groups``: blocks whose group is ``None`` are not in
    the selection. ``times`` are the starts of the steps in ms since the epoch. ``processes`` are ``""`` for
    traces without one. ``failed`` are the durations of the traces that failed. ``sign`` is -1 for traces that
    other columns count although they are not in the selection: they are to be subtracted. With ``buckets``,
    the first and the last one, only the traces with a duration in these are counted, whatever ``traces`` and
    ``errors`` say.
    """

    groups: Sequence[Stratum | None]
    of_groups: list[int]
    processes: list[str]
    times: list[int]
    traces: Numbers
    errors: Numbers
    durations: Durations
    failed: Durations
    sign: int = 1
    buckets: tuple[int, int] | None = None


def grouped(values: Iterable[str | None], strata: Iterable[str]) -> tuple[list[Stratum], list[int]]:
    """The first two of ``BlockColumns``, from the value and the stratum of each block."""
    each = [*zip(values, strata, strict=True)]
    places = {group: place for place, group in enumerate(dict.fromkeys(each))}
    return [*places], [*map(places.__getitem__, each)]


class BlockAmount(NamedTuple):
    """Sums over traces of one value: how many have an amount, of the amounts, of the amounts squared.

    ``measure`` is ``tokens``, ``cost`` in dollars, or ``feedback.<name>``. A trace without a model call
    has no tokens and costs nothing; one whose cost is not known has no cost. Feedback is counted each for
    itself: ``true`` is 1 and ``false`` 0, a number is itself, and anything else is left out. The other
    attributes are those of ``BlockColumns``.
    """

    measure: str
    value: str | None
    stratum: str
    process: str
    time: int
    traces: int
    total: float
    squares: float


TOKENS: Final = "tokens"
COST: Final = "cost"
OF_FEEDBACK: Final = "feedback."
MOST: Final = float(1 << 40)
"""Larger amounts are none, and neither are tokens and cost below 0."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """The metadata of one source, and its traces in a selection; times in ms since the epoch.

    ``first_seen`` and ``last_seen`` cover all its traces, not only those of the selection. ``durations`` is
    the number of durations in each bucket.
    """

    key: Any
    metadata: Mapping[str, str]
    traces: int
    errors: int
    first_seen: int
    last_seen: int
    durations: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session; times in ms since the epoch, ``duration_us`` from the first request to the last response.

    ``user`` is ``None`` if no trace names one, or if they name several; ``users`` is their number.
    """

    session_id: str
    turns: int
    errors: int
    first_seen: int
    last_seen: int
    duration_us: int
    users: int
    user: str | None


@dataclass(frozen=True, slots=True)
class StoreState:
    """Sizes and counts of a store; sizes in bytes, times in ms since the epoch, ``None`` for unknown.

    ``size`` includes the write-ahead log, ``free`` is the part of it that is unused.
    """

    kind: str
    location: str
    size: int
    free: int | None
    disk_free: int | None
    schema_version: int
    traces: int
    sources: int
    experiments: int
    oldest: int | None
    newest: int | None


@dataclass(slots=True)
class Health:
    """The state of a store that may be missing or damaged; ``problems`` and ``warnings`` are sentences.

    A value that could not be read is ``None``. Sizes are in bytes, times in ms since the epoch. ``writable``
    says whether an app could write now. ``cap`` is the size above which the oldest traces are deleted.
    """

    url: str
    file: str | None = None
    size: int | None = None
    free: int | None = None
    cap: int | None = None
    schema_version: int | None = None
    traces: int | None = None
    spans: int | None = None
    sources: int | None = None
    oldest: int | None = None
    newest: int | None = None
    journal_mode: str | None = None
    file_system: str | None = None
    writable: bool | None = None
    integrity: str | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Snapshot(Protocol):
    """One consistent moment of a store. Every method raises ``StoreError`` when the store cannot be read."""

    @property
    def now_ms(self) -> int:
        """The time of the snapshot in ms since the epoch: ``'2h ago'`` in a filter is relative to it."""

    def until(self, deadline: Deadline) -> AbstractContextManager[None]:
        """Give the queries in the block a deadline, past which they raise ``QueryTimeoutError``."""

    # Keys, values and state

    def keys(self, family: str) -> list[str]:
        """The keys that traces carry, sorted.

        ``family`` is ``metadata``, ``tag``, ``span``, ``feedback`` or ``expectation``.
        """

    def spelled_keys(self) -> Iterator[str]:
        """Every key that traces carry, as in a filter, for hints and completion."""

    def has_key(self, family: str, key: str) -> bool:
        """Whether some trace may carry the key."""

    def values(self, field: Field, limit: int) -> list[str]:
        """The values of a field in the newest traces and in all sources, the most frequent first."""

    def experiments(self) -> list[tuple[int, str]]:
        """Ids and names of all experiments."""

    def state(self) -> StoreState:
        """Sizes and counts of the store."""

    def processes(self) -> list[ProcessReport]:
        """The last report of each process that writes to this store, the newest first."""

    # Traces

    def search(
        self, selection: Selection, order: tuple[Key, ...], limit: int, after: Sequence[Any] | None = None
    ) -> Page:
        """At most ``limit`` traces of the selection in an order, starting after the sort values ``after``."""

    def find(self, trace_ids: Sequence[str]) -> list[TraceKey]:
        """The keys of the traces with these ids, in the same order; missing traces are left out."""

    def read(self, keys: Sequence[TraceKey], *, include_spans: bool = True) -> list[Trace]:
        """The traces, in the order of the keys."""

    def outline(self, key: TraceKey) -> list[Span]:
        """The spans of a trace by their start, without what they hold.

        Their inputs, outputs, attributes, events and links are not read, and are empty.
        """

    def spans(self, key: TraceKey, span_ids: Sequence[str], *, include_values: bool = True) -> list[Span]:
        """The spans of a trace with these ids, by their start; missing spans are left out.

        Without ``include_values``, inputs and outputs are ``None``.
        """

    def rows(self, keys: Sequence[TraceKey]) -> list[TraceRow]:
        """The traces without their spans, in the order of the keys."""

    def errors(self, keys: Sequence[TraceKey]) -> dict[str, str]:
        """The status message of the first failed span, by trace id."""

    def assessments(self, trace_ids: Sequence[str]) -> dict[str, list[Assessment]]:
        """The feedback and expectations of traces, which need not be stored yet; the oldest first."""

    def neighbours(self, info: TraceInfo) -> tuple[str | None, str | None]:
        """The ids of the previous and the next trace in the same experiment, among at least 10,000 others."""

    # Counts: groups, counts_by, buckets_by and sources include traces that have been pruned, where rollups
    # can tell them

    def count_values(self, keys: Sequence[TraceKey], fields: Sequence[Field]) -> list[Counter[str]]:
        """For each field of a trace, the number of these traces with each value."""

    def count_all_values(self, selection: Selection, fields: Sequence[Field]) -> list[Counter[str]]:
        """For each field of a trace, the number of traces of the selection with each value.

        Traces that have been pruned are not among them.
        """

    def count(self, selection: Selection) -> int:
        """The number of traces in the selection."""

    def bounds(self, selection: Selection, *, with_pruned: bool = False) -> tuple[int, int] | None:
        """The first and last request time of the selection in ms since the epoch, ``None`` if it is empty.

        ``with_pruned``: also of traces that have been pruned, if rollups can count them.
        """

    def first_seen(
        self, by: Field, values: Sequence[str], experiments: tuple[str, ...] | None
    ) -> dict[str, int]:
        """The first request time in ms since the epoch of all traces with each of these values of a field.

        Also of traces that have been pruned, if rollups can count them. Values without a trace are left out.
        """

    def groups(
        self, selection: Selection, by: Field, *, with_tokens: bool = False, before_blocks: bool = False
    ) -> list[ValueCounts]:
        """The traces of the selection, grouped by their value of a field.

        ``before_blocks``: their blocks are asked for next. A store may then count both at once.
        """

    def block_columns(
        self, selection: Selection, by: Field, stratum: Field | None, width_ms: int
    ) -> Iterator[BlockColumns]:
        """The traces by value, stratum, process and step of ``width_ms``; a block may come in several parts.

        Traces that have been pruned are among them if blocks of their hours are kept, and the step is made up
        of such blocks: see ``STRETCH_MS``.
        """

    def amounts(
        self, selection: Selection, by: Field, stratum: Field | None, width_ms: int, measures: Sequence[str]
    ) -> Iterator[BlockAmount]:
        """Tokens, cost and feedback by block as in ``block_columns``, feedback without that of pruned traces.

        ``measures`` are those of ``BlockAmount``.
        """

    def counts(self, selection: Selection, edges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield traces and errors within each ``(from, before)`` of ``edges``, counted lazily."""

    def counts_by(
        self, selection: Selection, by: Field, width_ms: int, *, with_pruned: bool = True
    ) -> Iterator[tuple[str | None, int, int, int]]:
        """Value, start, traces and errors for each value of a field and each step of ``width_ms``.

        Without ``with_pruned``, only of the traces that there are.
        """

    def buckets_by(
        self, selection: Selection, by: Field, width_ms: int
    ) -> Iterator[tuple[str | None, int, int | None, int, int]]:
        """Value, start, bucket, traces and errors, for each value, step of ``width_ms`` and bucket.

        A combination may come several times; the bucket of traces without a duration is ``None``.
        """

    def sources(self, selection: Selection, limit: int | None = None) -> list[SourceRow]:
        """The sources with traces in the selection, the one with the latest trace first.

        Only the ``limit`` sources that were stored last are considered.
        """

    def sessions(
        self, selection: Selection, limit: int, after: tuple[int, str] | None = None
    ) -> list[SessionRow]:
        """Sessions with a trace in the selection, the latest first; all traces of a session are counted."""

    def session(self, session_id: str, experiments: tuple[str, ...] | None) -> SessionRow | None:
        """One session; ``None`` if no trace has it."""

    # Changes

    def cursor(self) -> str:
        """The cursor of the end of the store, for ``changes``."""

    def changes(
        self, cursor: str | None, selection: Selection, limit: int, *, until: str | None = None
    ) -> Changes:
        """At most ``limit`` traces of the selection stored since a cursor, in the order of storing.

        ``None`` is the cursor of the beginning; ``until`` is a cursor, by default that of the end. One call
        may return fewer than ``limit`` traces, or none, before the end: there, ``done`` is 1. A cursor of a
        file that was replaced counts as the beginning.

        Raises:
            FilterError: a cursor was not returned by ``cursor`` or ``changes``.
        """


class Store(Protocol):
    """A sink that can be read and edited."""

    @property
    def url(self) -> str:
        """The URL that opens this store again, without credentials."""

    @property
    def path(self) -> Path | None:
        """The file of an embedded store."""

    def write(self, traces: Sequence[Trace]) -> None:
        """Write traces in one transaction; a trace that is stored already gains the spans that it lacks.

        The assessments of a trace are stored as ``write_assessments`` does.

        Raises:
            StoreUnavailableError: not now; the same call may succeed later.
        """

    def set_tag(self, trace_id: str, key: str, value: str) -> None:
        """Set a tag. Raises ``TraceNotFoundError``."""

    def delete_tag(self, trace_id: str, key: str) -> None:
        """Remove a tag. Raises ``TraceNotFoundError``."""

    def write_assessments(self, assessments: Sequence[Assessment]) -> None:
        """Store feedback and expectations; one with a known id takes the place of the earlier one.

        Their traces need not be stored yet. They are deleted with their trace; those whose trace never came
        are deleted by ``prune``, by the time when they were made.

        Raises:
            StoreUnavailableError: not now; the same call may succeed later.
        """

    def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        """Remove one. Raises ``TraceNotFoundError``."""

    def delete(
        self,
        experiment: str,
        *,
        trace_ids: Sequence[str] | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
    ) -> int:
        """Delete traces of an experiment by id or up to a time, the oldest first; return how many.

        Rollups, where a store has them, count them no more. Without ``trace_ids`` and ``limit``, neither do
        they count traces that were pruned, in whole hours up to the time.
        """

    def prune(self, before_ms: int, *, on_progress: Callable[[int], object] | None = None) -> int:
        """Delete traces that started before a time (ms since the epoch); return how many.

        They are deleted in short transactions with pauses, in which others write. ``on_progress`` is called
        after each with the number deleted so far. Rollups, where a store has them, still count them.
        """

    def vacuum(self) -> tuple[int, int]:
        """Return unused space to the disk; return the size before and after, in bytes. Blocks writers."""

    def health(self) -> Health:
        """The state of the store, without creating or changing it."""

    def missing(self) -> str | None:
        """A sentence if the store does not exist yet, ``None`` if it does. Creates nothing.

        Raises:
            StoreError: something else exists in its place.
        """

    def report(self, report: ProcessReport) -> None:
        """Replace the last report of this process."""

    def upgrade(self) -> int:
        """Create the file or the tables, or migrate them; return the version of the schema.

        Raises:
            StoreVersionError: a newer Wherefrom made them.
        """

    def wait(self, seconds: float) -> None:
        """Wait until traces have been written, but no longer than this. It may return sooner."""

    def snapshot(self, *, deadline_s: float | None = None) -> AbstractContextManager[Snapshot]:
        """Open a snapshot; queries past the deadline raise ``QueryTimeoutError``."""

    def close(self) -> None:
        """Release files and connections."""
