"""The fields of a filter: one table for the parser, the stores, ordering, hints, help and documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from .. import keys
from .errors import near_words, phrase

SOURCE_RUN: Final = "mlflow.sourceRun"


class Operator(StrEnum):
    """The operators, as in a filter."""

    EQ = "="
    NE = "!="
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="
    LIKE = "LIKE"
    NOT_LIKE = "NOT LIKE"
    ILIKE = "ILIKE"
    NOT_ILIKE = "NOT ILIKE"
    RLIKE = "RLIKE"
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"


EQUALITY: Final = (Operator.EQ, Operator.NE)
ORDER: Final = (Operator.GT, Operator.GE, Operator.LT, Operator.LE)
SEARCH: Final = (Operator.LIKE, Operator.ILIKE)
PATTERN: Final = (Operator.LIKE, Operator.NOT_LIKE, Operator.ILIKE, Operator.NOT_ILIKE, Operator.RLIKE)
LIST: Final = (Operator.IN, Operator.NOT_IN)
PRESENCE: Final = (Operator.IS_NULL, Operator.IS_NOT_NULL)


class Family(StrEnum):
    """Where a field is stored."""

    TRACE = "trace"
    METADATA = "metadata"
    TAG = "tag"
    SPAN = "span"
    FEEDBACK = "feedback"
    EXPECTATION = "expectation"


ASSESSED: Final = (Family.FEEDBACK, Family.EXPECTATION)
"""The families of assessments: a condition holds if one of those with the name does."""


class Type(StrEnum):
    """What a field is compared with."""

    TEXT = "text"
    ANY = "text or number"  # a number or text, as the literal is
    JSON = "JSON"  # text, but a number after <, <=, > and >=
    TIME = "time"
    DURATION = "duration"
    NUMBER = "number"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Field:
    """One field of a filter.

    ``name`` is its name in a filter, before the ``key`` if the family has arbitrary keys. ``constant`` is the
    value on every trace that MLflow's own store would have added. ``attributes`` are the names of a span
    attribute: the value is that of the root span, or of the first span that has one of them. ``number`` are
    the metadata key and the name of a number in its JSON.
    """

    name: str
    family: Family
    type: Type
    operators: tuple[Operator, ...]
    help: str
    key: str | None = None
    aliases: tuple[str, ...] = ()
    sort_names: tuple[str, ...] = ()
    constant: str | None = None
    attributes: tuple[str, ...] = ()
    is_of_root: bool = False
    number: tuple[str, str] | None = None

    # Name and key identify a field; the other attributes follow from them.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Field) and (self.name, self.key) == (other.name, other.key)

    def __hash__(self) -> int:
        return hash((self.name, self.key))

    def __repr__(self) -> str:
        return f"<Field {self.label}>"

    @property
    def nullable(self) -> bool:
        """Whether a trace may lack it."""
        return Operator.IS_NULL in self.operators

    @property
    def label(self) -> str:
        """The name of the field in messages."""
        return self.name if self.key is None else f"{self.name}.{self.key}"


_STORED_TEXT: Final = (*EQUALITY, *PATTERN, *LIST)
_NUMERIC: Final = (*EQUALITY, *ORDER)
_OPEN: Final = (*EQUALITY, *ORDER, *PATTERN, *LIST, *PRESENCE)

METADATA: Final = Field(
    "metadata", Family.METADATA, Type.ANY, _OPEN, "Metadata, which is fixed when the trace ends.",
    aliases=("request_metadata",),
)  # fmt: skip
TAG: Final = Field("tag", Family.TAG, Type.ANY, _OPEN, "Tags, which can be changed later.", aliases=("tags",))
_ASSESSED: Final = (*EQUALITY, *ORDER, *PATTERN, *PRESENCE)
FEEDBACK: Final = Field(
    "feedback", Family.FEEDBACK, Type.JSON, _ASSESSED,
    "Feedback by its name: feedback.helpful = 'true', feedback.score > 0.5.",
)  # fmt: skip
EXPECTATION: Final = Field(
    "expectation", Family.EXPECTATION, Type.JSON, _ASSESSED, "An expectation by its name."
)
SPAN_ATTRIBUTE: Final = Field(
    "span.attributes",
    Family.SPAN,
    Type.ANY,
    _OPEN,
    "An attribute of a span; all span conditions hold on one span.",
)
_CONTENT: Final = Field(
    "span.content", Family.SPAN, Type.TEXT, SEARCH,
    "The text of a span: name, type, status message, inputs, outputs, attributes, events.",
    aliases=("text",),
)  # fmt: skip

TRACE_FIELDS: Final = (
    Field(
        "name", Family.TRACE, Type.TEXT, (*_STORED_TEXT, *PRESENCE), "The name of the root span.",
        sort_names=("name",),
    ),
    Field(
        "status", Family.TRACE, Type.TEXT, _STORED_TEXT, "OK, ERROR, IN_PROGRESS or STATE_UNSPECIFIED.",
        sort_names=("status",),
    ),
    Field(
        "request_id", Family.TRACE, Type.TEXT, _STORED_TEXT, "The id of the trace, 'tr-' and 32 hex digits.",
        aliases=("trace_id",), sort_names=("request_id",),
    ),
    Field(
        "client_request_id", Family.TRACE, Type.TEXT, (*_STORED_TEXT, *PRESENCE),
        "The request id: X-Request-ID, else generated.",
    ),
    Field(
        "session_id", Family.TRACE, Type.TEXT, (*_STORED_TEXT, *PRESENCE),
        "The session: metadata mlflow.trace.session.", aliases=("session",),
    ),
    Field(
        "user", Family.TRACE, Type.TEXT, (*_STORED_TEXT, *PRESENCE),
        "The user: metadata mlflow.trace.user.",
    ),
    Field(
        "timestamp", Family.TRACE, Type.TIME, _NUMERIC, "Start of the request.",
        aliases=("timestamp_ms", "time"), sort_names=("timestamp", "timestamp_ms"),
    ),
    Field(
        "execution_time", Family.TRACE, Type.DURATION, (*_NUMERIC, *PRESENCE), "Duration in ms.",
        aliases=("execution_time_ms", "duration"), sort_names=("execution_time", "execution_time_ms"),
    ),
    Field(
        "end_time", Family.TRACE, Type.TIME, _NUMERIC, "End of the request; its start while it runs.",
        aliases=("end_time_ms",),
    ),
    Field(
        "http_status", Family.TRACE, Type.ANY, (*_NUMERIC, *LIST, *PRESENCE), "Status of the HTTP response.",
        attributes=("http.response.status_code",), is_of_root=True,
    ),
    Field(
        "outcome", Family.TRACE, Type.TEXT, (*_STORED_TEXT, *PRESENCE),
        "How the request ended: completed, client_closed, cancelled or failed.",
        attributes=("wherefrom.outcome",), is_of_root=True,
    ),
    Field(
        "error_type", Family.TRACE, Type.TEXT, (*_STORED_TEXT, *PRESENCE),
        "The type of the exception, or the status, of the first failed span.", attributes=("error.type",),
    ),
    Field(
        "model", Family.TRACE, Type.TEXT, (*_STORED_TEXT, *PRESENCE),
        "The model that the first model call asks for.",
        attributes=("gen_ai.request.model", "gen_ai.response.model"),
    ),
    Field(
        "time_to_first_byte", Family.TRACE, Type.DURATION, (*_NUMERIC, *PRESENCE),
        "Time to the first byte of the response in ms.", attributes=("wherefrom.time_to_first_byte_ms",),
        is_of_root=True,
    ),
    Field(
        "tokens", Family.TRACE, Type.NUMBER, (*_NUMERIC, *PRESENCE), "All tokens of its model calls.",
        number=(keys.TOKEN_USAGE, "total_tokens"),
    ),
    Field(
        "cost", Family.TRACE, Type.NUMBER, (*_NUMERIC, *PRESENCE), "Cost of its model calls in dollars.",
        number=(keys.COST, "total_cost"),
    ),
    Field(
        "request_preview", Family.TRACE, Type.TEXT, (*_STORED_TEXT, *PRESENCE), "What was asked.",
        aliases=("preview",),
    ),
    Field(
        "response_preview", Family.TRACE, Type.TEXT, (*_STORED_TEXT, *PRESENCE), "What was answered.",
        aliases=("response",),
    ),
)  # fmt: skip
SEARCH_FIELD: Final = Field(
    "search", Family.TRACE, Type.TEXT, SEARCH,
    "Name, previews and messages of failed spans; an id as a whole. A word alone searches for this.",
)  # fmt: skip
RUN_ID: Final = Field(
    "run_id", Family.METADATA, Type.TEXT, (*EQUALITY, *PATTERN, *PRESENCE),
    "The MLflow run: metadata mlflow.sourceRun.", sort_names=("run_id",),
)  # fmt: skip
EXPERIMENT: Final = Field(
    "experiment_id", Family.TRACE, Type.TEXT, (), "The experiment; for ordering alone.",
    sort_names=("experiment_id",),
)  # fmt: skip
SPAN_FIELDS: Final = (
    Field("span.name", Family.SPAN, Type.TEXT, _STORED_TEXT, "The name of a span."),
    Field("span.type", Family.SPAN, Type.TEXT, _STORED_TEXT, "SERVER, LLM, TOOL and so on."),
    Field("span.status", Family.SPAN, Type.TEXT, _STORED_TEXT, "OK, ERROR or UNSET."),
    Field("span.message", Family.SPAN, Type.TEXT, _STORED_TEXT, "The status message of a span."),
    _CONTENT,
)
ALL_FIELDS: Final = (
    *TRACE_FIELDS,
    SEARCH_FIELD,
    RUN_ID,
    METADATA,
    TAG,
    FEEDBACK,
    EXPECTATION,
    *SPAN_FIELDS,
    SPAN_ATTRIBUTE,
)
"""Every row of the table, in the order in which help and docs list it."""


def stored_key(field: Field) -> str:
    """The key of the field in its family."""
    return SOURCE_RUN if field is RUN_ID else field.key or ""


OPEN: Final = (METADATA, TAG, FEEDBACK, EXPECTATION)
"""The families of traces in which a field is any key."""
_OPEN_FAMILIES: Final = {name: field for field in OPEN for name in (field.name, *field.aliases)}
_CLOSED: Final = {
    name: field
    for field in (*TRACE_FIELDS, SEARCH_FIELD, RUN_ID, *SPAN_FIELDS)
    for name in (field.name, *field.aliases)
}
_PREFIXES: Final = {"attribute": "", "attributes": "", "trace": "", "span": "span."}
_ELSEWHERE: Final = frozenset({"issue", "prompt"})

# Values that MLflow's store adds to every trace: filters on them give the same results here.
_CONSTANTS: Final = {
    (Family.METADATA, "mlflow.trace.infoFinalized"): "true",
    (Family.TAG, "mlflow.artifactLocation"): "",
    (Family.TAG, keys.SPANS_LOCATION_TAG): "TRACKING_STORE",
}
_WHOLE_JSON: Final = frozenset({keys.TOKEN_USAGE, "mlflow.trace.cost"})

_OTHER_NAMES: Final = {
    "attr": "attributes",
    "execution_duration": "execution_time",
    "execution_duration_ms": "execution_time",
    "info": "trace",
    "latency_ms": "execution_time",
    "model_id": "metadata.mlflow.modelId",
    "request_time": "timestamp",
    "span_name": "span.name",
    "spans": "span",
    "state": "status",
    "trace_metadata": "metadata",
    "trace_name": "name",
    "user_id": "user",
}


_COLUMNS: Final = {
    "version": keys.APP_VERSION,
    "environment": keys.ENVIRONMENT,
    "region": keys.REGION,
    "deployment": keys.DEPLOYMENT_ID,
}
"""Metadata keys by the names of their columns in tables."""


class UnknownFieldError(LookupError):
    """There is no such field; the message suggests the nearest ones, which ``names`` has in full."""

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)


def find_field(family: str | None, name: str, known_keys: Iterable[str] = ()) -> Field:
    """The field ``family.name``, or ``name`` without a family.

    ``known_keys`` are the keys that traces carry, as in a filter, for the suggestion.

    Raises:
        UnknownFieldError: there is none.
    """
    if family in _ELSEWHERE or (name in _ELSEWHERE and family not in _OPEN_FAMILIES):
        raise UnknownFieldError(
            f"{family or name} is not kept in this store: issues and prompts live in MLflow"
        )
    if family in _OPEN_FAMILIES:
        return with_key(_OPEN_FAMILIES[family], name)
    if family is not None and family not in _PREFIXES:
        near = _near(family, [*_OPEN_FAMILIES, *_PREFIXES])
        names = [f"{one}.{name}" for one in near]
        raise UnknownFieldError(f"there is no {family!r} to ask for{phrase(near)}", names)
    if family == "span" and name.startswith("attributes."):
        return with_key(SPAN_ATTRIBUTE, name.removeprefix("attributes."))
    full_name = _PREFIXES.get(family or "", "") + name
    if full_name in _CLOSED:
        return _CLOSED[full_name]
    if full_name in _COLUMNS:
        return with_key(METADATA, _COLUMNS[full_name])
    near = _near_field(full_name, name, known_keys)
    raise UnknownFieldError(f"there is no field {name!r}{phrase(near)}", near)


def find_other_name(family: str | None, name: str) -> Field | None:
    """The field that another program, or a column of a table, calls ``name``."""
    other = _OTHER_NAMES.get(name) if family is None else None
    return None if other is None or other in _PREFIXES else find_field(*_split(other))


def _split(name: str) -> tuple[str | None, str]:
    family, dot, key = name.partition(".")
    return (family, key) if dot else (None, name)


def with_key(field: Field, key: str) -> Field:
    """The field for a key of a family with arbitrary keys; some have fewer operators or a constant."""
    keyed = replace(field, key=key, constant=_CONSTANTS.get((field.family, key)))
    if field is METADATA and key in _WHOLE_JSON:
        return replace(keyed, type=Type.TEXT, operators=(*EQUALITY, *PRESENCE))
    return keyed


def field_names() -> Iterator[str]:
    """All names of fields, aliases included; the name of a family with arbitrary keys ends in a dot."""
    for field in ALL_FIELDS:
        dot = "." if field in {*OPEN, SPAN_ATTRIBUTE} else ""
        for name in (field.name, *field.aliases):
            yield name + dot
    yield from _COLUMNS


def _near_field(full_name: str, name: str, known_keys: Iterable[str]) -> list[str]:
    spelled = {key.partition(".")[2]: key for key in known_keys}
    if name in spelled:
        return [spelled[name]]
    known = {word: word for word in field_names()} | spelled
    return _near(name, ()) or near_words(full_name, known)


def _near(name: str, known: Iterable[str]) -> list[str]:
    return [_OTHER_NAMES[name]] if name in _OTHER_NAMES else near_words(name, known)
