"""Reads ids and metadata from request headers. Every value is untrusted input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from .. import keys
from ..process import ledger
from ..settings import Settings

MAX_LENGTH: Final = 256
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

HeaderMap = dict[bytes, bytes]

SESSION: Final = b"x-session-id"
USER: Final = b"x-user-id"
PLAIN: Final = ((SESSION, keys.SESSION), (USER, keys.USER))
"""The header metadata without further settings."""


class HeaderReader:
    """Reads request headers, those that the settings name.

    ``metadata`` are pairs of header name and metadata key; ``request_id`` is a header name.
    """

    def __init__(self, settings: Settings) -> None:
        self.request_id = settings.request_id_header.lower().encode("latin-1")
        mapped: dict[str, str | None] = {name.decode(): key for name, key in PLAIN}
        mapped |= {name.lower(): key for name, key in settings.header_metadata.items()}
        self.metadata = tuple((name.encode("latin-1", "replace"), key) for name, key in mapped.items() if key)
        self._captured = tuple(name.lower().encode("latin-1", "replace") for name in settings.capture_headers)

        self.captures = bool(self._captured)
        self.is_plain = self.metadata == PLAIN
        self._users = frozenset(name.decode("latin-1") for name, key in self.metadata if key == keys.USER)

    def is_user(self, name: str) -> bool:
        """Whether a header carries the user id."""
        return name in self._users

    def captured(self, headers: Iterable[Sequence[bytes]]) -> dict[str, list[str]]:
        """Return the headers of ``capture_headers``, decoded as latin-1."""
        values: dict[str, list[str]] = {}
        for name, value in headers:
            if (lower := name.lower()) in self._captured:
                values.setdefault(lower.decode("latin-1"), []).append(value.decode("latin-1")[:MAX_LENGTH])
        return values


def index_headers(headers: Iterable[Any]) -> HeaderMap:
    """Return the headers by their lower-case names; the first of repeated headers counts."""
    if type(headers) is not list:
        headers = list(headers)
    found: HeaderMap = dict(headers)
    # In a dict the last of repeated headers counts. They are rare: only then is it built in reverse.
    return found if len(found) == len(headers) else dict(reversed(headers))


def clean_value(name: bytes, raw: bytes) -> str | None:
    """Return a header's value trimmed and decoded as latin-1, or ``None`` when it is refused.

    A value that is empty, longer than 256 or holds control characters is refused and counted.
    """
    value = _clean(raw)
    if value is None:
        ledger.refused(name.decode("latin-1"))
    return value


def clean_often(name: bytes, raw: bytes) -> str | None:
    """``clean_value`` for values that come again and again, as a session or a user sends many requests."""
    value = _clean_often(raw) if len(raw) <= MAX_LENGTH else _clean(raw)
    if value is None:
        ledger.refused(name.decode("latin-1"))
    return value


def _clean(raw: bytes) -> str | None:
    value = raw.decode("latin-1").strip(" \t")
    # isprintable is fast and true for most values; a no-break space is not printable, and no control.
    if 0 < len(value) <= MAX_LENGTH and (value.isprintable() or not _CONTROL.search(value)):
        return value
    return None


_clean_often = lru_cache(maxsize=4096)(_clean)
