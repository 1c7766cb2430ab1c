"""Values from outside made safe to keep: text without lone surrogates, JSON of anything, cut to a limit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import orjson

ELLIPSIS = "..."
PREVIEW_LENGTH = 1000
MAX_KEY_LENGTH = 250
MAX_JSON_BYTES = 1_000_000

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATETIME
_TEXT_LIKE = (date, time, timedelta, Decimal, PurePath)
_MAX_DEPTH = 20
_MAX_REPR = 1000
_INT64 = 1 << 63


def cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters, ending in ``...`` where something was left out."""
    if len(text) <= limit:
        return text
    return text[: max(limit - len(ELLIPSIS), 0)] + ELLIPSIS[:limit]


def clean_text(value: object) -> str:
    """``str(value)`` that can be encoded; never raises, whatever ``__str__`` does."""
    try:
        text = value if type(value) is str else str(value)
    except Exception:  # noqa: BLE001 - somebody else's __str__
        text = safe_repr(value)
    return text if _is_encodable(text) else text.encode("utf-8", "replace").decode()


def clean_pairs(pairs: Mapping[Any, Any], limit: int) -> dict[str, str]:
    """Metadata or tags as they are kept: keys of at most 250 characters, values cut, ``None`` left out."""
    return {
        clean_text(key)[:MAX_KEY_LENGTH]: cut(clean_text(value), limit)
        for key, value in pairs.items()
        if value is not None
    }


def safe_repr(value: object) -> str:
    """``repr(value)`` in at most 1,000 characters; never raises."""
    try:
        if isinstance(value, (bytes, bytearray)):  # the repr of a long one is four times as long
            return cut(repr(value[: _MAX_REPR + 1]), _MAX_REPR)
        return cut(repr(value), _MAX_REPR)
    except Exception:  # noqa: BLE001 - somebody else's __repr__
        return f"<{type(value).__name__} object, its repr failed>"


def dump(value: Any) -> bytes:
    """``value`` as JSON; what JSON cannot hold is written as its ``repr``. Never raises.

    Dates, times, decimals and paths are written as ``str``, as MLflow does.
    """
    try:
        return orjson.dumps(value, default=_plain_object, option=_OPTIONS)
    except Exception:  # noqa: BLE001 - a cycle, a lone surrogate, a huge int, somebody's model_dump
        return orjson.dumps(_plain(value, _MAX_DEPTH))


def to_json(value: Any) -> str:
    """``dump`` as text."""
    return dump(value).decode()


def snapshot(value: Any) -> Any:
    """``value`` as plain JSON data, as it is now: later changes to the original do not show.

    Anything that serialises to more than 1 MB is kept as the beginning of its JSON text.
    """
    if value is None or value is True or value is False or type(value) is float:
        return value
    if type(value) is str and len(value) <= MAX_JSON_BYTES:
        return value if _is_encodable(value) else clean_text(value)
    data = dump(value)
    if len(data) > MAX_JSON_BYTES:
        return data[: MAX_JSON_BYTES - len(ELLIPSIS)].decode(errors="ignore") + ELLIPSIS
    return orjson.loads(data)


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain_object(value: Any) -> Any:
    """What to write for an object that JSON has no form for."""
    if isinstance(value, _TEXT_LIKE):
        return str(value)
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    if hasattr(type(value), "model_dump"):  # of the type: a mock, a proxy or a class would say yes too
        return value.model_dump(mode="json", warnings=False)
    return safe_repr(value)


def _plain(value: Any, depth: int, path: frozenset[int] = frozenset()) -> Any:
    """The slow way, taken only when orjson refused: a value that cannot be kept costs only itself."""
    try:
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            if not depth or id(value) in path:
                return clean_text(safe_repr(value))
            return _plain_container(value, depth - 1, path | {id(value)})
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return _plain_scalar(value)
        return orjson.loads(orjson.dumps(value, default=_plain_object, option=_OPTIONS))
    except Exception:  # noqa: BLE001 - somebody else's container or object
        return clean_text(safe_repr(value))


def _plain_container(value: Any, depth: int, path: frozenset[int]) -> Any:
    if isinstance(value, dict):
        return {clean_text(key): _plain(item, depth, path) for key, item in value.items()}
    return [_plain(item, depth, path) for item in value]


def _plain_scalar(value: str | int) -> str | int:
    if isinstance(value, str):
        return clean_text(str.__str__(value))
    return int(value) if -_INT64 <= value < _INT64 else clean_text(value)
