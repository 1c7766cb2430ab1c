"""Untrusted text made safe to display: it cannot move the cursor, hide text or reorder it."""

from __future__ import annotations

import re
from typing import Final

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/?#\s'\"]+(?=@)")
# Where a password may reach beyond what ends the host, any part may be one.
_UNCLEAR: Final = re.compile(r"((?:postgres(?:ql)?|clickhouse)://)[^\s'\"]*[/?#][^\s'\"]*@[^\s'\"]*")
_SECRET_PARAMETER: Final = re.compile(r"(?i)(?<=[?&])([\w-]*(?:password|token|secret|key)[\w-]*=)[^&#\s'\"]+")
_JOINERS: Final = "\u200c\u200d"
MASK: Final = "********"


def visible(text: object) -> str:
    r"""``str(text)`` on one line, with control, formatting and direction characters written as ``\x1b``."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else _escaped(char) for char in shown)


def visible_lines(text: str) -> list[str]:
    """The lines of a text, each as ``visible``; tabs become blanks."""
    return [visible(line.expandtabs(4)) for line in re.split(r"\r\n|\n", text)]


def visible_prose(text: str) -> str:
    """Text of a language, with its line breaks, otherwise as ``visible``.

    The joiners that Persian, Indic scripts and emoji are written with are kept.
    """
    lines = (line.expandtabs(4) for line in re.split(r"\r\n|\n", text))
    return "\n".join(line if line.isprintable() else "".join(map(_prose_char, line)) for line in lines)


def visible_json(json: str) -> str:
    r"""The same JSON, with invisible characters written as ``\u001b``; its line breaks are kept."""
    if json.isprintable():
        return json
    return "".join(char if char.isprintable() or char == "\n" else _json_escaped(char) for char in json)


def without_secrets(text: str) -> str:
    """The text, with credentials in its URLs masked."""
    shown = _CREDENTIALS.sub(MASK, _UNCLEAR.sub(rf"\1{MASK}", text))
    return _SECRET_PARAMETER.sub(rf"\1{MASK}", shown)


def _prose_char(char: str) -> str:
    return char if char.isprintable() or char in _JOINERS else _escaped(char)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _json_escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
