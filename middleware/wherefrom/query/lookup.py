"""From the name in a filter to the row of the field table, and to the nearest one where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from sqlalchemy import Text, cast

from .. import keys
from ..stores.schema import spans, traces
from .errors import did_you_mean
from .fields import (
    ALL_FIELDS,
    EQUALITY,
    METADATA,
    PRESENCE,
    RUN_ID,
    SPAN_ATTRIBUTE,
    SPAN_FIELDS,
    TAG,
    TRACE_FIELDS,
    Family,
    Field,
    Type,
)

_OPEN: Final = {name: field for field in (METADATA, TAG) for name in (field.name, *field.aliases)}
_CLOSED: Final = {
    name: field for field in (*TRACE_FIELDS, RUN_ID, *SPAN_FIELDS) for name in (field.name, *field.aliases)
}
_PREFIXES: Final = {"attribute": "", "attributes": "", "trace": "", "span": "span."}
_ELSEWHERE: Final = frozenset({"feedback", "expectation", "issue", "prompt"})

_COLUMNS: Final = {
    (Family.METADATA, keys.SESSION): traces.c.session_id,
    (Family.METADATA, keys.USER): traces.c.user_id,
    (Family.TAG, keys.TRACE_NAME_TAG): traces.c.name,
    (Family.SPAN, keys.SPAN_TYPE): spans.c.span_type,
    (Family.SPAN, keys.SPAN_INPUTS): cast(spans.c.inputs, Text),
    (Family.SPAN, keys.SPAN_OUTPUTS): cast(spans.c.outputs, Text),
}
# What MLflow's store adds to each trace by itself, so that filters on it answer the same here.
_CONSTANTS: Final = {
    (Family.METADATA, "mlflow.trace.infoFinalized"): "true",
    (Family.TAG, "mlflow.artifactLocation"): "",
    (Family.TAG, keys.SPANS_LOCATION_TAG): "TRACKING_STORE",
}
_WHOLE_JSON: Final = frozenset({keys.TOKEN_USAGE, "mlflow.trace.cost"})

_OTHER_NAMES: Final = {
    "attr": "attributes",
    "duration": "execution_time",
    "execution_duration": "execution_time",
    "execution_duration_ms": "execution_time",
    "info": "trace",
    "latency_ms": "execution_time",
    "model_id": "metadata.mlflow.modelId",
    "request_time": "timestamp",
    "session": "session_id",
    "span_name": "span.name",
    "spans": "span",
    "state": "status",
    "trace_metadata": "metadata",
    "trace_name": "name",
    "user_id": "user",
}


class UnknownFieldError(LookupError):
    """No such field; the message names the nearest."""


def find_field(family: str | None, name: str, known_keys: Iterable[str] = ()) -> Field:
    """The field that ``family.name``, or a bare ``name``, stands for.

    ``known_keys`` are keys that traces carry, as a filter spells them, for the hint.

    Raises:
        UnknownFieldError: there is none.
    """
    if family in _ELSEWHERE or (name in _ELSEWHERE and family not in _OPEN):
        raise UnknownFieldError(
            f"{family or name} is not kept in this store: assessments, issues and prompts live in MLflow"
        )
    if family in _OPEN:
        return with_key(_OPEN[family], name)
    if family is not None and family not in _PREFIXES:
        raise UnknownFieldError(f"there is no {family!r} to ask for{_hint(family, [*_OPEN, *_PREFIXES])}")
    if family == "span" and name.startswith("attributes."):
        return with_key(SPAN_ATTRIBUTE, name.removeprefix("attributes."))
    full_name = _PREFIXES.get(family or "", "") + name
    if full_name in _CLOSED:
        return _CLOSED[full_name]
    raise UnknownFieldError(f"there is no field {name!r}{_near_field(full_name, name, known_keys)}")


def with_key(field: Field, key: str) -> Field:
    """The field for one key of an open family; some keys have a column, or fewer operators."""
    place = (field.family, key)
    keyed = replace(field, key=key, column=_COLUMNS.get(place), constant=_CONSTANTS.get(place))
    if field is METADATA and key in _WHOLE_JSON:
        return replace(keyed, type=Type.TEXT, operators=(*EQUALITY, *PRESENCE))
    return keyed


def field_names() -> Iterator[str]:
    """Every name that a filter may use, aliases too; a family that holds keys of any name ends in a dot."""
    for field in ALL_FIELDS:
        dot = "." if field in {METADATA, TAG, SPAN_ATTRIBUTE} else ""
        for name in (field.name, *field.aliases):
            yield name + dot


def _near_field(full_name: str, name: str, known_keys: Iterable[str]) -> str:
    spelled = {key.partition(".")[2]: key for key in known_keys}
    if name in spelled:
        return f"; did you mean {spelled[name]}?"
    known = {word: word for word in field_names()} | spelled
    return _hint(name, ()) or did_you_mean(full_name, known)


def _hint(name: str, known: Iterable[str]) -> str:
    if name in _OTHER_NAMES:
        return f"; did you mean {_OTHER_NAMES[name]}?"
    return did_you_mean(name, known)
