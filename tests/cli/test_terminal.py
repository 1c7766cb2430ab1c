"""Text and tables on a terminal."""

from __future__ import annotations

from wherefrom.cli.terminal import styled

from .conftest import HOSTILE


def test_markup_is_text() -> None:
    """What looks like Rich's markup is shown as it is."""
    assert styled("[red]x[/red] :smile:").plain == "[red]x[/red] :smile:"


def test_what_steers_a_terminal_is_written_out() -> None:
    """Escape sequences in untrusted text are printed as visible characters."""
    assert styled(HOSTILE).plain.isprintable()
