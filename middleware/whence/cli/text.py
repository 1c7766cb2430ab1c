"""Text of strangers as the terminal styles it."""

from __future__ import annotations

from rich.text import Text

from ..display.text import visible


def styled(text: object, style: str = "") -> Text:
    """``visible`` text for the terminal; markup in it is text like any other."""
    return Text(visible(text), style=style, end="")
