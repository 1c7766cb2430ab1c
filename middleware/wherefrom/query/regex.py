r"""Regular expressions in linear time: RE2 with the syntax of Python's ``re``.

RE2 has no look-around and no back-references, which need more than linear time. Its ``\d``, ``\w`` and ``\s``
match ASCII only and Python's match Unicode, so they are replaced by Unicode classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from .._clock import perf_counter
from ..exceptions import MissingExtraError

_SPACE = r"\t-\r\x1c-\x20\x85\p{Z}"
_WORD = r"\p{L}\p{N}_"
# Replacements of escapes outside and inside brackets; a negated union cannot be written inside.
_OUTSIDE: Final = {
    "d": r"\p{Nd}",
    "D": r"\P{Nd}",
    "w": f"[{_WORD}]",
    "W": f"[^{_WORD}]",
    "s": f"[{_SPACE}]",
    "S": f"[^{_SPACE}]",
    "Z": r"\z",
}
_INSIDE: Final = {"d": r"\p{Nd}", "D": r"\P{Nd}", "w": _WORD, "s": _SPACE}
# Bytes of text times instructions of the pattern: RE2 needs up to 20 ns for each.
_LEAST_STEP, _CHARACTER = 64, 4  # bytes
_STEP: Final = 10_000_000
_PIECE = re.compile(r"\\.|\[\^?\]?|\]|.", re.DOTALL)


@lru_cache(maxsize=256)
def compile_pattern(pattern: str, check: Callable[[float], None] | None = None) -> Callable[[str], bool]:
    """Return a function that returns whether ``pattern`` matches anywhere in a text, in linear time.

    ``check`` is called between steps with the seconds that the next step will take, about; it may raise.

    Raises:
        ValueError: the pattern is invalid, or RE2 does not support it.
        MissingExtraError: google-re2 is not installed.
    """
    try:
        import re2
    except ImportError as error:
        raise MissingExtraError("RLIKE", "regex") from error
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(translate(pattern).encode(), options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(
            reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        ) from None
    step = _STEP // compiled.programsize

    def is_found(text: str) -> bool:
        data = text.encode()
        if check is None or len(data) <= step:
            return compiled.search(data) is not None
        return _is_found(compiled, data, max(step, _LEAST_STEP), check)

    return is_found


def _is_found(compiled: Any, data: bytes, step: int, check: Callable[[float], None]) -> bool:
    """Whether the pattern is found, looked for in more and more of the data: no search can be interrupted."""
    end, took = 0, 0.0
    while True:
        end += max(step, end // 16)
        check(took)
        started = perf_counter()
        found = compiled.search(data, 0, end)
        took = perf_counter() - started
        if end >= len(data):
            return found is not None
        if found is not None and found.end() < end - _CHARACTER:
            return True  # it ends there in all of the data too


def translate(pattern: str) -> str:
    """The pattern in RE2's syntax."""
    pieces = []
    inside = False
    for match in _PIECE.finditer(pattern):
        piece = match[0]
        if piece[0] == "\\" and len(piece) == 2:
            piece = (_INSIDE if inside else _OUTSIDE).get(piece[1], piece)
        elif not inside and piece[0] == "[":
            inside = True
        elif inside and piece[0] == "[":
            piece = "".join(rf"\{char}" if char == "[" else char for char in piece)
            inside = "]" not in piece
        elif piece == "]":
            inside = False
        pieces.append(piece)
    return "".join(pieces)
