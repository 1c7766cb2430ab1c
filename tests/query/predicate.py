"""What a filter means, in plain Python: what the SQL is checked against."""

from __future__ import annotations

import operator
import re
from typing import Any

import orjson

from wherefrom import keys
from wherefrom.model import Span, Trace
from wherefrom.query.fields import Family, Field, Operator, Type, stored_key
from wherefrom.query.tree import And, Compare, Node, Not, Or

_RELATIONS = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?", re.ASCII)


def matches(node: Node, trace: Trace) -> bool:
    """Whether there is a span, or none, with which the filter holds."""
    return any(_holds(node, trace, span) for span in (*trace.data.spans, None))


def _holds(node: Node, trace: Trace, span: Span | None) -> bool:
    match node:
        case And(parts):
            return all(_holds(part, trace, span) for part in parts)
        case Or(parts):
            return any(_holds(part, trace, span) for part in parts)
        case Not(part):
            return not matches(part, trace)
        case Compare():
            if node.field.family is Family.SPAN and span is None:
                return False
            return _compare(node, _value(node.field, trace, span))


def _compare(node: Compare, value: Any) -> bool:  # noqa: C901
    if node.operator is Operator.IS_NULL:
        return value is None
    if value is None:
        return False
    operand: Any = node.value
    match node.operator:
        case Operator.IS_NOT_NULL:
            return True
        case Operator.IN:
            return value in operand
        case Operator.NOT_IN:
            return value not in operand
        case Operator.LIKE:
            return _like(value, operand)
        case Operator.NOT_LIKE:
            return not _like(value, operand)
        case Operator.ILIKE:
            return _like(value.translate(_LOWER), operand.translate(_LOWER))
        case Operator.NOT_ILIKE:
            return not _like(value.translate(_LOWER), operand.translate(_LOWER))
        case Operator.RLIKE:
            return re.search(operand, value) is not None
    if node.field.type is Type.ANY and not isinstance(operand, str):
        if not _NUMBER.fullmatch(value):
            return False
        value = float(value)
    return bool(_RELATIONS[node.operator](value, operand))


def _like(value: str, pattern: str) -> bool:
    wildcards = {"%": ".*", "_": "."}
    translated = "".join(wildcards.get(char, re.escape(char)) for char in pattern)
    return re.fullmatch(translated, value, re.DOTALL) is not None


def _value(field: Field, trace: Trace, span: Span | None) -> Any:
    info = trace.info
    if field.family is Family.METADATA:
        return info.trace_metadata.get(stored_key(field))
    if field.family is Family.TAG:
        return info.tags.get(stored_key(field))
    if span is not None and field.family is Family.SPAN:
        return _span_value(field, span)
    if field.attributes:
        return _first(field, trace)
    if field.number is not None:
        return _number(info.trace_metadata.get(field.number[0]), field.number[1])
    duration = info.execution_duration
    return {
        "name": info.name,
        "status": str(info.state),
        "request_id": info.trace_id,
        "client_request_id": info.client_request_id,
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
        "session_id": info.trace_metadata.get(keys.SESSION),
        "user": info.trace_metadata.get(keys.USER),
        "timestamp": info.request_time,
        "execution_time": duration,
        "end_time": info.request_time + (duration or 0),
    }[field.name]


def _number(text: str | None, name: str) -> float | None:
    try:
        value = orjson.loads(text or "")[name]
    except (ValueError, LookupError, TypeError):
        return None
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _first(field: Field, trace: Trace) -> Any:
    ids = {span.span_id for span in trace.data.spans}
    for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns):
        if field.is_of_root and span.parent_id in ids:
            continue
        for name in field.attributes:
            if (value := span.attributes.get(name)) is not None:
                return value if field.type is Type.DURATION or isinstance(value, str) else str(value)
    return None


def _span_value(field: Field, span: Span) -> Any:
    if field.key is not None:
        value = span.attributes.get(field.key)
        return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
    return {
        "span.name": span.name,
        "span.type": span.span_type,
        "span.status": str(span.status.code),
        "span.message": span.status.description,
    }[field.name]
