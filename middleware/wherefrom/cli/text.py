"""Text of strangers on the terminal."""

from __future__ import annotations

from rich.text import Text

from .._sanitize import visible


def styled(text: object, style: str = "") -> Text:
    """``visible`` text for the terminal; markup in it is text like any other."""
    return Text(visible(text), style=style, end="")
