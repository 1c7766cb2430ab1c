from __future__ import annotations

from whence.cli.text import styled


def test_markup_is_text() -> None:
    assert styled("[red]x[/red] :smile:").plain == "[red]x[/red] :smile:"
