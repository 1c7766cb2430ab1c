"""Captured bodies: JSON, also where it was cut, and the events of a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

ELLIPSIS: Final = "..."
"""What a captured body ends with that was longer."""
_FIELD: Final = re.compile(r"(?:data|event|id|retry)(?::|$)|:")
_LINES: Final = re.compile(r"\r\n|\r|\n")
_DONE: Final = "[DONE]"
_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s"\[\]{},:]+|"', re.DOTALL)
_DEEPEST: Final = 150  # what is written as JSON once more has some levels around it
_LONG: Final = 65_536
_TAIL: Final = 16_384
_MOST_CHUNKS: Final = 100_000
_BLANKS: Final = ("\r\n\r\n", "\n\n", "\r\r")


@dataclass(frozen=True, slots=True)
class Body:
    """The value of a text; ``is_cut`` says that the text ends early."""

    value: Any
    is_cut: bool = False


def load_json(text: str) -> Any:
    """The value of a text of JSON.

    Raises:
        ValueError: it is no JSON, or is nested deeper than 150 times.
    """
    value = orjson.loads(text)
    if text.count("{") + text.count("[") > _DEEPEST and _is_deep(value):
        raise ValueError(f"JSON that is nested deeper than {_DEEPEST} times")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def parse_body(text: str) -> Body | None:
    """The JSON in a text, or the list of the chunks of a stream.

    ``None`` for any other text, and for JSON that is nested very deep.
    """
    start = text.lstrip("\ufeff \t\r\n")
    is_cut = start.endswith(ELLIPSIS)
    if start[:1] in {"{", "["}:
        try:
            return Body(load_json(start))
        except ValueError:
            lines = _LINES.split(start.removesuffix(ELLIPSIS) if is_cut else start)
            if len(lines) > 1 and (chunks := _json_lines(lines)):
                return Body(chunks, is_cut)
            whole = complete_json(start.removesuffix(ELLIPSIS)) if is_cut else None
            return None if whole is None else Body(whole, is_cut=True)
    if not _FIELD.match(start):
        return None
    chunks = list(_events(start.removesuffix(ELLIPSIS) if is_cut else start, is_cut=is_cut))
    return Body(chunks, is_cut) if chunks else None


def abridged(body: Any) -> Any:
    """A captured body without the middle of a long one: what a preview and the token counts are read from.

    Of a stream the first and last events are kept, of other text the beginning; other values are as they are.
    """
    if not isinstance(body, str) or len(body) <= _LONG:
        return body
    if not _FIELD.match(body.lstrip()):
        return body[:_LONG].removesuffix(ELLIPSIS) + ELLIPSIS
    if len(body) <= _LONG + _TAIL:  # both ends have events in common
        return body
    head, tail = body[:_LONG], body[-_TAIL:]
    last = max(head.rfind(blank) for blank in _BLANKS)
    starts = [at + len(blank) for blank in _BLANKS if (at := tail.find(blank)) >= 0]
    return f"{head[: max(last, 0)]}\n\n{tail[min(starts, default=_TAIL) :]}"


def _json_lines(lines: Sequence[str]) -> list[Any]:
    """The objects of a text that has one on each line; the last line may be cut."""
    found: list[Any] = []
    full = [line for line in lines[:_MOST_CHUNKS] if line.strip()]
    for at, line in enumerate(full):
        try:
            found.append(load_json(line))
        except ValueError:
            return found if at and at == len(full) - 1 else []
    return found


def _events(text: str, *, is_cut: bool) -> Iterator[Any]:
    """The data of each event: JSON where it is some, else text. The last one of a cut text is not whole."""
    data: list[str] = []
    waiting: Any = None
    for line in (*_LINES.split(text)[:_MOST_CHUNKS], ""):
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            if waiting is not None:
                yield waiting
            waiting, data = _parsed("\n".join(data)), []
    if waiting is not None and not (is_cut and isinstance(waiting, str) and waiting[:1] in {"{", "["}):
        yield waiting


def _parsed(data: str) -> Any:
    if data == _DONE:
        return None
    try:
        return load_json(data)
    except ValueError:
        return data


def complete_json(text: str) -> Any:
    """The JSON that a text begins with: open strings, lists and objects are closed, an open key is left out.

    ``None`` if that is no JSON either.
    """
    open_: list[str] = []
    good = 0  # the end of the last whole value, or of an opening bracket
    for token in _TOKENS.finditer(text):
        mark = token[0]
        if mark in "[{":
            open_.append("]" if mark == "[" else "}")
            if len(open_) > _DEEPEST:
                return None
            good = token.end()
        elif mark in "]}":
            if not open_ or open_.pop() != mark:
                return None
            good = token.end()
        elif mark == '"':
            return _closed(text, token.start(), good, open_)
        elif mark == ",":
            good = token.start()
    ends = "".join(reversed(open_))
    return next((found for end in (text, text[:good]) if (found := _loads(end + ends)) is not None), None)


def _closed(text: str, start: int, good: int, open_: Sequence[str]) -> Any:
    """A text that ends inside of the string at ``start``; an escape that is cut in two is left out."""
    ends = "".join(reversed(open_))
    for length in range(7):
        end = len(text) - length
        if end > start and (found := _loads(f'{text[:end]}"{ends}')) is not None:
            return found
    return _loads(text[:good] + ends)


def _loads(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None
