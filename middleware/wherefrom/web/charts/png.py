"""A drawing as PNG, rendered by resvg: no browser, no system library, but a font to write with."""

from __future__ import annotations

from functools import cache
from typing import Final

from ...exceptions import MissingExtraError, WherefromError
from .drawing import FONT
from .markup import element

_ZOOM: Final = 2


class NoFontError(WherefromError):
    """There is no font on this machine to write with."""


def to_png(svg: str, *, with_system_fonts: bool = True) -> bytes:
    """The picture, twice as large, so that it is sharp on any screen.

    Raises:
        MissingExtraError: resvg-py is not installed.
        NoFontError: text could not be drawn.
    """
    if not _has_font(with_system_fonts):
        raise NoFontError(
            "a PNG cannot be drawn here: no font is installed (Debian has fonts-dejavu-core);"
            " an SVG is written where it is looked at"
        )
    return _render(svg, with_system_fonts)


@cache
def _has_font(with_system_fonts: bool) -> bool:
    written, blank = (_render(_word(text), with_system_fonts) for text in ("M", ""))
    return written != blank


def _word(text: str) -> str:
    shown = element("text", text, y=15, font_family=FONT)
    return element("svg", shown, xmlns="http://www.w3.org/2000/svg", width=20, height=20)


def _render(svg: str, with_system_fonts: bool) -> bytes:
    try:
        from resvg_py import svg_to_bytes
    except ModuleNotFoundError as error:
        raise MissingExtraError("a picture as PNG", "ui") from error
    return svg_to_bytes(
        svg_string=svg,
        zoom=_ZOOM,
        skip_system_fonts=not with_system_fonts,
        sans_serif_family="DejaVu Sans",
    )
