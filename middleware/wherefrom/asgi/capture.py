"""Captures request and response bodies: up to a limit, and with the values of secret keys redacted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

REDACTED: Final = "[redacted]"

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

    def value(self, content_type: str, redactor: Redactor) -> Any:
        """Return what to record: JSON as data, a form as a dict, text as text, else content type and size."""
        if not self.size:
            return None
        kind = content_type.partition(";")[0].strip().lower()
        data, whole = bytes(self._kept), self.size == len(self._kept)
        if kind.endswith(("json", "+json")):
            return redactor.json(data, whole=whole)
        if kind == "application/x-www-form-urlencoded":
            return redactor.form(data)
        if kind.startswith("text/") or "xml" in kind or "javascript" in kind or "ndjson" in kind:
            text = data.decode("utf-8", "replace")
            return redactor.text(text) + ("" if whole else "...")
        return f"<{kind or 'no content type'}, {self.size} bytes>"


class Redactor:
    """Redacts the values of named keys in bodies; case is ignored."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower() for name in names)

    def hides(self, name: str) -> bool:
        """Whether values of this key are redacted."""
        return name.lower() in self._names

    def json(self, data: bytes, *, whole: bool) -> Any:
        """Return JSON as redacted data; as redacted text when the body is truncated."""
        if whole:
            try:
                return self._clean(orjson.loads(data))
            except (orjson.JSONDecodeError, RecursionError):
                pass
        return self.text(data.decode("utf-8", "replace")) + ("" if whole else "...")

    def form(self, data: bytes) -> dict[str, str]:
        """Return the redacted fields of a form."""
        pairs = parse_qsl(data.decode("latin-1"), keep_blank_values=True, max_num_fields=None)
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
