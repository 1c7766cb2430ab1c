"""What may stand in a field of a trace that comes from elsewhere: each function takes or refuses a value.

Refused is what a later search, export or page would break on. Text that cannot be encoded is replaced, and
data that JSON cannot hold is written as ``dump`` writes it, since it costs nothing but itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from .._capture.values import clean_text, cut, dump, safe_repr
from ..exceptions import InvalidTraceError

LATEST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, the last that dates can be written of."""
LONGEST_MS: Final = (2**63 - 1) // 1_000_000
LATEST_NS: Final = 2**63 - 1

_MAX_ID: Final = 250
_MAX_DEPTH: Final = 64
_MAX_DIGITS: Final = 20


def text(what: str, value: object) -> str:
    """Text."""
    if not isinstance(value, str):
        raise _refused(what, "text", value)
    return clean_text(value)


def optional_text(what: str, value: object) -> str | None:
    """Text, or ``None``."""
    return None if value is None else text(what, value)


def identifier(what: str, value: object) -> str:
    """Text that is neither empty nor very long."""
    if not 0 < len(found := text(what, value)) <= _MAX_ID:
        raise _refused(what, f"1 to {_MAX_ID} characters", value)
    return found


def whole_number(what: str, value: object, most: int) -> int:
    """A number from 0 to ``most``, perhaps as text, as protobuf's JSON has it; a fraction is left out."""
    if isinstance(value, str) and len(value) <= _MAX_DIGITS and value.isascii() and value.isdigit():
        value = int(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:  # type: ignore[operator]
        raise _refused(what, f"a number from 0 to {most}", value)
    return int(value)  # type: ignore[call-overload, no-any-return]


def mapping(what: str, value: object) -> Mapping[Any, Any]:
    """An object; empty where there is none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _refused(what, "an object", value)
    return value


def listed(what: str, value: object) -> list[Any]:
    """A list; empty where there is none."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _refused(what, "a list", value)
    return value


def strings(what: str, value: object) -> dict[str, str]:
    """An object of text; values of another type are written as text."""
    return {clean_text(key): clean_text(item) for key, item in mapping(what, value).items()}


def attributes(what: str, value: object) -> dict[str, Any]:
    """An object of JSON data."""
    return {clean_text(key): json_data(item) for key, item in mapping(what, value).items()}


def json_data(value: Any) -> Any:
    """``value`` as JSON data; what is nested deeper than 64 levels becomes JSON text."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) is str:
        return clean_text(value)
    data = dump(value)
    plain = orjson.loads(data)
    return plain if _is_within(plain, _MAX_DEPTH) else data.decode()


def _is_within(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return not isinstance(value, list) or (depth > 0 and all(_is_within(item, depth - 1) for item in value))


def _refused(what: str, takes: str, value: object) -> InvalidTraceError:
    return InvalidTraceError(f"{what} takes {takes}, not {cut(safe_repr(value), 60)}")
