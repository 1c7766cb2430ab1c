"""Captures request and response bodies: up to a limit, and with the values of secret keys redacted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from .._capture.values import clean_text
from .decoding import Decoded, charset_of, codings_of, decompress, text_of

REDACTED: Final = "[redacted]"

_FORM: Final = "application/x-www-form-urlencoded"
_TEXT: Final = re.compile(r"^text/|xml|javascript|ndjson")
_MAX_NOTES, _MAX_NOTE = 4, 60

# A JSON string, and the colon that makes it a key.
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:\s*)?', re.DOTALL)
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]|[,\s]+|[^"\[\]{},\s]+', re.DOTALL)


class Body:
    """The first bytes of one body, collected while it passes."""

    __slots__ = ("_kept", "_limit", "size")

    def __init__(self, limit: int) -> None:
        self._kept = bytearray()
        self._limit = limit
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """Add a chunk; only bytes within the limit are recorded."""
        self.size += len(chunk)
        if (room := self._limit - len(self._kept)) > 0:
            self._kept += chunk[:room]

    def value(self, content_type: str, redactor: Redactor, coding: str = "") -> Any:
        """Return what to record: JSON as data, a form as a dict, text as text, anything else as one line.

        ``coding`` is the ``Content-Encoding``. The line names type, coding and size: ``<image/png, 1,234
        bytes>``. A body whose coding or charset cannot be read is recorded as a line too.
        """
        if not self.size:
            return None
        kind = content_type.partition(";")[0].strip().lower()
        codings = codings_of(coding)
        is_json = kind.endswith(("json", "+json"))
        decoded: Decoded | None = None
        if is_json or kind == _FORM or _TEXT.search(kind):
            decoded = bytes(self._kept), self.size == len(self._kept)
            if codings:
                decoded = decompress(*decoded, codings, self._limit)
        if decoded is None:
            return self._described(kind, codings)
        data, is_whole = decoded
        charset, codec = charset_of(content_type, data, is_json=is_json)
        if codec is None:
            return self._described(kind, [*codings, charset])
        text, is_valid = text_of(data, codec, is_whole=is_whole)
        if kind == _FORM:
            return redactor.form(text, codec)
        if is_json and is_whole and is_valid:
            return redactor.json(text)
        return redactor.text(text) + ("" if is_whole else "...")

    def _described(self, kind: str, notes: Iterable[str]) -> str:
        parts = [clean_text(part, _MAX_NOTE) for part in (kind or "no content type", *notes)]
        return f"<{', '.join([*parts[:_MAX_NOTES], f'{self.size:,} bytes'])}>"


class Redactor:
    """Redacts the values of named keys in bodies; case is ignored."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower() for name in names)

    def hides(self, name: str) -> bool:
        """Whether values of this key are redacted."""
        return name.lower() in self._names

    def json(self, text: str) -> Any:
        """Return JSON as redacted data, or as redacted text if it is not valid."""
        try:
            return self._clean(orjson.loads(text))
        except (orjson.JSONDecodeError, RecursionError):
            return self.text(text)

    def form(self, text: str, codec: str) -> dict[str, str]:
        """Return the redacted fields of a form, whose percent escapes are in this codec."""
        pairs = parse_qsl(text, keep_blank_values=True, encoding=codec)
        return {key: REDACTED if self.hides(key) else value for key, value in pairs}

    def text(self, text: str) -> str:
        """Return text in which values of JSON keys are redacted."""
        parts: list[str] = []
        done = 0
        for match in _STRING.finditer(text):
            if match[2] and match.start() >= done and self.hides(_unescaped(match[1])):
                parts += text[done : match.end()], f'"{REDACTED}"'
                done = _end_of_value(text, match.end())
        return "".join(parts) + text[done:]

    def _clean(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: REDACTED if self.hides(key) else self._clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        return value


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return str(orjson.loads(f'"{text}"'))
    except orjson.JSONDecodeError:
        return text


def _end_of_value(text: str, start: int) -> int:
    """Return where the JSON value at ``start`` ends; the end of the text when it is truncated."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        kind = token[0][0]
        if kind in "[{":
            depth += 1
        elif kind in "]}":
            depth -= 1
        if depth < 0 or (depth == 0 and (kind == "," or kind.isspace())):
            return token.start()
        if depth == 0:
            return token.end()
    return len(text)
