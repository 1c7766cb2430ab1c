"""Query and path parameters: what each page accepts, as FastAPI checks and documents it.

An unknown or repeated parameter is an error. An empty text counts as absent, because a form sends the fields
that were left empty.
"""

# No ``from __future__ import annotations``: FastAPI reads the annotations of these classes as they are.

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

from fastapi import Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, Field
from starlette.requests import Request

from .. import keys
from .._records import DatasetFormat
from ..exceptions import FilterError
from ..query.errors import did_you_mean

TITLES: Final = {
    "time": "Time",
    "state": "State",
    "http_status": "HTTP",
    "name": "Name",
    "duration": "Duration",
    "preview": "Preview",
    "version": "Version",
    "user": "User",
    "session": "Session",
    "request_id": "Request id",
    "response": "Response",
    "error": "Error",
    "outcome": "Outcome",
    "environment": "Environment",
    "region": "Region",
    "deployment": "Deployment",
    "experiment": "Experiment",
    "trace_id": "Trace id",
    "model": "Model",
    "tokens": "Tokens",
    "cost": "Cost",
    "first_token": "First token",
}
"""The columns with names, in the order in which a form lists them."""

DEFAULT_COLUMNS: Final = tuple(TITLES)[: list(TITLES).index("response")]
_KEYS: Final = {
    "version": keys.APP_VERSION,
    "environment": keys.ENVIRONMENT,
    "region": keys.REGION,
    "deployment": keys.DEPLOYMENT_ID,
}
_OF_A_KEY: Final = re.compile(r"(metadata|tag)\.[^\x00-\x1f]{1,250}")


@dataclass(frozen=True, slots=True)
class Column:
    """One column; that of a key names its ``family``, ``metadata`` or ``tag``, and the ``key``."""

    name: str
    title: str
    family: str | None = None
    key: str | None = None

    @property
    def kind(self) -> str:
        """The name for style sheets: that of the column, or ``pair``."""
        return self.name if self.name in TITLES else "pair"


def check_column(name: str) -> str:
    """The name of a column; an empty one, which a form may send, passes.

    Raises:
        ValueError: there is no such column.
    """
    if name and name not in TITLES and not _OF_A_KEY.fullmatch(name):
        raise ValueError("expected a column such as duration, metadata.tier or tag.team")
    return name


def columns_of(names: Sequence[str]) -> list[Column]:
    """The columns with these names, each once."""
    return [_column(name) for name in dict.fromkeys(names)]


def choices(chosen: Sequence[str]) -> Iterator[tuple[Column, bool]]:
    """Every column with a name and every chosen one, and whether it is chosen."""
    for name in dict.fromkeys((*TITLES, *chosen)):
        yield _column(name), name in chosen


def _column(name: str) -> Column:
    if name in TITLES:
        key = _KEYS.get(name)
        return Column(name, TITLES[name], None if key is None else "metadata", key)
    family, _, key = name.partition(".")
    return Column(name, key, family, key)


Text = Annotated[str, Field(max_length=10_000)]
_MAX_SHOWN: Final = 60
_MAX_MESSAGE: Final = 120


class ParameterError(FilterError):
    """A parameter that a page does not accept, or a value that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """The parameters of a request; fields without a default are parts of the path."""

    experiment: Annotated[
        Annotated[str, Field(max_length=250)] | None,
        Query(description="The experiment to read, by name; all experiments by default."),
    ] = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, tuple):
                value = tuple(filter(None, value))
            if value in ("", ()) and one.default is not MISSING:
                value = one.default
            object.__setattr__(self, one.name, value)

    @property
    def given(self) -> dict[str, tuple[str, ...]]:
        """The query parameters that differ from their defaults, as an address spells them."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.default is not MISSING}
        defaults = {one.name: one.default for one in fields(self)}
        return {
            name: _spell(value)
            for name, value in values.items()
            if value is not None and value != defaults[name]
        }

    def encoded(self, **changes: Any) -> str:
        """The query string with some parameters changed; ``None`` removes one."""
        return encode({**self.given, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeQuery(PageQuery):
    """A time range."""

    since: Annotated[
        Annotated[str, Field(max_length=100)] | None,
        Query(
            description="Start of the time range: `2h ago`, `yesterday`, an ISO date or ms since 1970;"
            " by default one day before `until`."
        ),
    ] = None
    until: Annotated[
        Annotated[str, Field(max_length=100)] | None,
        Query(description="End of the time range, in the same forms; now by default."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeQuery(TimeQuery):
    """Traces that pass a filter within a time range."""

    filter: Annotated[
        Text | None, Query(description="A filter in the query language; every trace by default.")
    ] = None


_After = Annotated[
    Text | None, Query(description="The page after this token: `next_page` of the last answer.")
]
_Columns = Annotated[
    tuple[Annotated[str, AfterValidator(check_column)], ...],
    Query(
        max_length=100,
        description="The columns of the table, in order; `metadata.<key>` and `tag.<key>` are columns too.",
    ),
]


_Split = Annotated[
    Annotated[str, Field(max_length=300)] | None,
    Query(description="The field, metadata key or tag whose values are told apart over time."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendsQuery(RangeQuery):
    """Traces over time, of all or by the values of a field."""

    split: _Split = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesQuery(RangeQuery):
    """A page of the list of traces."""

    order: Annotated[
        Literal["newest", "oldest", "slowest", "fastest"], Query(description="Which traces come first.")
    ] = "newest"
    size: Annotated[int, Query(ge=1, le=500, description="Traces on a page.")] = 50
    after: _After = None
    before: Annotated[
        Text | None, Query(description="The page before this token, `previous_page` of the last.")
    ] = None
    columns: _Columns = DEFAULT_COLUMNS
    live: Annotated[bool, Query(description="Whether the page adds new traces as they are stored.")] = False
    split: _Split = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesQuery(RangeQuery):
    """Traces stored since a cursor."""

    cursor: Annotated[
        Text | None,
        Query(description="`cursor` of the last answer; without it the answer holds the current cursor."),
    ] = None
    p95_ms: Annotated[
        float | None,
        Query(ge=0, allow_inf_nan=False, description="The duration in ms that bars are drawn against."),
    ] = None
    columns: _Columns = DEFAULT_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class ToggleQuery(PageQuery):
    """A filter and one value of a field."""

    filter: Annotated[Text | None, Query(description="A filter in the query language.")] = None
    field: Annotated[str, Query(max_length=300, description="A field as in a filter.")] = ""
    value: Annotated[Text, Query(description="A value of the field.")] = ""
    way: Annotated[
        Literal["toggle", "only", "not"],
        Query(description="Whether the value is added or removed, selected alone, or excluded."),
    ] = "toggle"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionQuery(PageQuery):
    """A filter that is being typed."""

    text: Annotated[Text | None, Query(description="The filter up to the caret.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceQuery(RangeQuery):
    """One trace, and the filter and time range of the list that it is in."""

    trace_id: Annotated[
        str, Path(min_length=1, max_length=300, description="The id of the trace: `tr-` and 32 hex digits.")
    ]


MOST_FOLDED: Final = 50
_SpanId = Annotated[str, Field(max_length=300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpansQuery(TraceQuery):
    """One trace, those of its spans that are listed, and the one that is shown in detail."""

    span: Annotated[
        _SpanId | None,
        Query(
            description="The id of the span shown in detail; by default where the error began, or the root."
        ),
    ] = None
    search: Annotated[
        Annotated[str, Field(max_length=200)] | None,
        Query(description="A text in the name, type, status message or id of the listed spans."),
    ] = None
    errors: Annotated[bool, Query(description="Whether only spans that failed are listed.")] = False
    order: Annotated[
        Literal["tree", "own"],
        Query(description="The order of the spans: `own` is by own time, the most first."),
    ] = "tree"
    fold: Annotated[
        tuple[_SpanId, ...],
        Query(max_length=MOST_FOLDED, description="Ids of spans whose descendants the page does not list."),
    ] = ()
    page: Annotated[
        int | None,
        Query(ge=1, le=10**9, description="The page of the list; by default that of the span in detail."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanQuery(SpansQuery):
    """One span of a trace."""

    span_id: Annotated[
        str, Path(min_length=1, max_length=300, description="The id of the span: 16 hex digits.")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsQuery(RangeQuery):
    """A page of the list of sessions."""

    size: Annotated[int, Query(ge=1, le=500, description="Sessions on a page.")] = 50
    after: _After = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionQuery(PageQuery):
    """One session and a page of its turns."""

    id: Annotated[Text, Query(description="The id of the session.")] = ""
    size: Annotated[int, Query(ge=1, le=500, description="Turns on a page.")] = 100
    after: _After = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareQuery(RangeQuery):
    """A comparison."""

    by: Annotated[
        str, Query(max_length=300, description="The field, metadata key or tag whose values are compared.")
    ] = keys.APP_VERSION
    baseline: Annotated[
        Text | None,
        Query(description="The value that the others are compared with; the first seen by default."),
    ] = None
    sequential: Annotated[
        bool,
        Query(
            description="Whether the tests allow to look again and again while traces arrive; without, they"
            " are for one look and find smaller differences."
        ),
    ] = True


_TraceId = Annotated[str, Field(max_length=300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TracePairQuery(RangeQuery):
    """Two traces: both by id, one and a neighbour of its route, or a typical one of each of two values."""

    a: Annotated[
        _TraceId | None,
        Query(description="The id of a trace or of its request; by default the one before `b` on its route."),
    ] = None
    b: Annotated[
        _TraceId | None,
        Query(description="The other one; by default the one after `a` on its route."),
    ] = None
    by: Annotated[
        str,
        Query(
            max_length=300,
            description="Without `a` and `b`: the field of which both values have a typical trace.",
        ),
    ] = keys.APP_VERSION
    trace: Annotated[
        tuple[_TraceId, ...],
        Query(
            max_length=500, description="Both ids, instead of `a` and `b`, as a form of choices sends them."
        ),
    ] = ()
    baseline: Annotated[Text | None, Query(description="The value of `a`.")] = None
    candidate: Annotated[Text | None, Query(description="The value of `b`.")] = None
    order: Annotated[
        Literal["tree", "difference"],
        Query(description="The order of the spans: `difference` is by that of their durations."),
    ] = "tree"
    page: Annotated[int, Query(ge=1, le=10**9, description="The page of the list of spans.")] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportQuery(RangeQuery):
    """The traces of a file: those in a time range, or the chosen ones."""

    trace: Annotated[
        tuple[_TraceId, ...],
        Query(max_length=500, description="Ids of traces: these alone, whatever filter and time range are."),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetQuery(ExportQuery):
    """The traces of a dataset and the form of its records."""

    format: Annotated[
        DatasetFormat,
        Query(description="`openai` for fine-tuning at OpenAI, `mlflow` for evaluation with MLflow."),
    ] = DatasetFormat.OPENAI


_Limit = Annotated[str, Field(max_length=100)]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictQuery(RangeQuery):
    """A question to a gate: whether a candidate is within limits of a baseline."""

    baseline: Annotated[Text, Query(description="The value to compare with, such as a version.")] = ""
    candidate: Annotated[Text, Query(description="The value that may pass.")] = ""
    by: Annotated[
        str, Query(max_length=300, description="The field, metadata key or tag that has both values.")
    ] = keys.APP_VERSION
    max_error_increase: Annotated[
        _Limit, Query(description="How many percentage points more may fail: `1pp`, or `none`.")
    ] = "1pp"
    max_p95_increase: Annotated[
        _Limit, Query(description="How much longer p95 may be: `10%`, or `none`.")
    ] = "10%"
    max_p50_increase: Annotated[
        _Limit, Query(description="How much longer p50 may be: `10%`, or `none`.")
    ] = "none"
    min_traces: Annotated[
        int, Query(ge=1, le=1_000_000_000, description="Traces that each side needs; at least 30.")
    ] = 30
    stratify: Annotated[
        str, Query(max_length=300, description="What is compared only with itself, or `none`.")
    ] = "name"
    hook: Annotated[
        Literal["rollout", "confirm-traffic-increase", "confirm-promotion", "rollback"],
        Query(description="With POST: the type of Flagger's webhook, which says what status 200 means."),
    ] = "rollout"


def reader_of(kind: type[PageQuery]) -> Callable[..., Awaitable[PageQuery]]:
    """A dependency for FastAPI that reads the parameters of a request.

    It is a coroutine function because FastAPI calls any other in the threads of the app around.
    """

    async def read(request: Request, **values: Any) -> PageQuery:
        _check_names(request, kind)
        return kind(**values)

    request = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
    signature = inspect.Signature([request, *inspect.signature(kind).parameters.values()])
    read.__signature__ = signature  # type: ignore[attr-defined] # a function has one when it is set
    return read


def _check_names(request: Request, kind: type[PageQuery]) -> None:
    defaults = {one.name: one.default for one in fields(kind) if one.default is not MISSING}
    for name in request.query_params:
        if name not in defaults:
            raise ParameterError(
                f"unknown parameter {name[:_MAX_SHOWN]!r}{did_you_mean(name, list(defaults))}"
            )
        repeats = len(request.query_params.getlist(name))
        if repeats > 1 and not isinstance(defaults[name], tuple):
            raise ParameterError(f"{name}: expected one value, not {repeats}")


def parameter_error(error: RequestValidationError) -> ParameterError:
    """One sentence about the first parameter that FastAPI refused."""
    first = error.errors()[0]
    name = str(first["loc"][1]) if len(first["loc"]) > 1 else "request"
    message = str(first["msg"]).removeprefix("Value error, ")[:_MAX_MESSAGE]
    message = message[:1].lower() + message[1:]
    value = str(first.get("input"))
    shown = value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}…"
    return ParameterError(f"{name}: {message}, not {shown!r}")


def encode(pairs: Mapping[str, Any]) -> str:
    """Pairs as a query string; ``None``, an empty text and an empty sequence are left out."""
    return urlencode({name: _spell(value) for name, value in pairs.items() if value is not None}, doseq=True)


def _spell(value: Any) -> tuple[str, ...]:
    if isinstance(value, (tuple, list)):
        return tuple(map(str, value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return (text,) if text else ()


_OFFERED: Final = {
    "15m ago": "15 min",
    "1h ago": "1 hour",
    "6h ago": "6 hours",
    "24h ago": "24 hours",
    "7d ago": "7 days",
    "30d ago": "30 days",
    "0": "All",
}


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A time range to choose, up to now: the value of ``since``, and whether the page shows it."""

    since: str
    title: str
    is_chosen: bool


def time_ranges(query: Any) -> Iterable[TimeRange]:
    """The time ranges that a page offers; none where it has no time range."""
    if not isinstance(query, TimeQuery):
        return []
    since = query.since or "24h ago"
    return [TimeRange(one, title, query.until is None and one == since) for one, title in _OFFERED.items()]
