"""Which keys get a row in ``known_keys``, and which values ``trace_values`` lists.

``known_keys`` serves hints and completion, and says which keys ``trace_values`` indexes. It is bounded. For a
key that does not fit, its family gets a row under ``OTHERS`` in the same transaction. So each key of a stored
trace has a row, or its family has that one. In the second case a key that gets a row later may occur in older
traces, whose values are not indexed. Rows are never deleted.

``trace_values`` has the traces with a value under a key of their own metadata or tags, by time. It indexes
values of at most 128 characters, under keys of at most 250 characters that need no JSON escapes and have a
row in ``known_keys``. ``known_keys.unlisted`` says what the index lacks: with ``LONG`` it lacks long values,
so it serves equality with a short text but no pattern; with ``ANY`` it may lack any value and is not used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ... import keys

MAX_KEYS: Final = 10_000
"""So many keys of a family have a row."""
MAX_NEW_KEYS: Final = 1_000
"""So many more may have one after a trace, or after the spans of a batch."""
OTHERS: Final = ""
"""The key of the row that marks a family in which some keys have no row."""
MAX_LENGTH: Final = 128
MAX_KEY_LENGTH: Final = 250

WHOLE: Final = 0
LONG: Final = 1
ANY: Final = 2
"""What a key's list lacks: nothing, values that are too long or hold a NUL, or unknown values."""

# Keys that need no JSON escapes and can be quoted in SQLite's JSON paths.
_PLAIN_KEY: Final = re.compile(r"[ !#-\[\]-~]+")
CONTENT: Final = frozenset(
    {
        keys.TRACE_INPUTS,
        keys.TRACE_OUTPUTS,
        keys.TOKEN_USAGE,
        keys.PART,
        "mlflow.trace.cost",
        "mlflow.trace.sizeBytes",
        "mlflow.trace.sizeStats",
    }
)
"""What differs from trace to trace: an index would only cost space."""


def has_row(key: str) -> bool:
    """Whether the key gets a row if there is room."""
    return 0 < len(key) <= MAX_KEY_LENGTH and "\0" not in key


def admit(new: Sequence[str], count: int, *, is_closed: bool) -> list[tuple[str, int]]:
    """The rows to add for new keys of a family with ``count`` rows: the key, and what its list lacks."""
    room = max(0, min(MAX_KEYS - count, MAX_NEW_KEYS))
    rows = [(key, ANY if is_closed else WHOLE) for key in new[:room]]
    if len(new) > room and not is_closed:
        rows.append((OTHERS, ANY))
    return rows


def is_plain(key: str) -> bool:
    """Whether the key needs no JSON escapes and can be quoted in a JSON path."""
    return _PLAIN_KEY.fullmatch(key) is not None


@lru_cache(maxsize=1024)
def lists_key(key: str) -> bool:
    """Whether values under the key are indexed."""
    return is_plain(key) and len(key) <= MAX_KEY_LENGTH and key not in CONTENT


def lists_value(value: str) -> bool:
    """Whether the value is indexed, if its key is."""
    return len(value) <= MAX_LENGTH and "\0" not in value
