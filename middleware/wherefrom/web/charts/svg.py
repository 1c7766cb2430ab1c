"""SVG elements with styles; untrusted text is always escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from markupsafe import Markup, escape

from ..._sanitize import visible
from ...analysis import Verdict

Value = str | float | None

_SPELLED: Final = {"class_": "class"}
NOTHING: Final = Markup()
_LONGEST: Final = 1_000  # names in traces are untrusted, and a chart is small


def element(name: str, *content: str, style: str = "", **attributes: Value) -> Markup:
    """One element: ``content`` other than ``Markup`` is text, attributes that are ``None`` are omitted.

    Text is truncated to 1,000 characters. ``style`` is one or more names from ``STYLES``: they become the
    class and the attributes of the element.
    """
    styled: dict[str, Value] = {"class": style or None}
    for one in style.split():
        styled |= STYLES[one]
    styled |= {_SPELLED.get(key, key.replace("_", "-")): value for key, value in attributes.items()}
    written = "".join(_attribute(key, value) for key, value in styled.items() if value is not None)
    inside = "".join(map(_text, content))
    return Markup(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")  # noqa: S704


def joined(*parts: Markup) -> Markup:
    """Elements in sequence."""
    return NOTHING.join(parts)


def percent(share: float) -> str:
    """A share of the width as SVG spells it."""
    return f"{_number(100 * share)}%"


def cut(text: str, most: int) -> str:
    """The text on one line, truncated to ``most`` characters, with invisible characters escaped."""
    shown = visible(text if len(text) <= most else text[:most])
    return shown if len(shown) <= most and len(text) <= most else f"{shown[: most - 1]}…"


def _attribute(key: str, value: str | float) -> str:
    text = _number(value) if isinstance(value, (int, float)) else escape(visible(value))
    return f' {key}="{text}"'


def _text(content: str) -> str:
    return content if isinstance(content, Markup) else escape(cut(content, _LONGEST))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


MUTED: Final = "#57606a"

STYLES: Final[dict[str, dict[str, str]]] = {
    "ink": {"fill": "#1f2328"},
    "muted": {"fill": MUTED, "font-size": "11"},
    "strong": {"font-weight": "600"},
    "grid": {"stroke": "#d8dee4"},
    "halo": {"stroke": "#ffffff", "stroke-width": "3", "stroke-linejoin": "round", "paint-order": "stroke"},
    "paper": {"fill": "#ffffff"},
    "worse": {"color": "#c62828"},
    "better": {"color": "#1a7f37"},
    "alike": {"color": "#31639c"},
    "few": {"color": "#8a6100"},
    "baseline": {"color": MUTED},
    "series-1": {"color": MUTED, "stroke-dasharray": "5 3"},
    "series-2": {"color": "#0b66c2", "stroke-dasharray": "none"},
    "series-3": {"color": "#b5500b", "stroke-dasharray": "12 3"},
    "series-4": {"color": "#157a5a", "stroke-dasharray": "2 3"},
    "series-5": {"color": "#a3277c", "stroke-dasharray": "9 3 2 3"},
    "series-6": {"color": "#6b5b00", "stroke-dasharray": "14 3 2 3 2 3"},
    "fill": {"fill": "currentColor", "stroke": "none"},
    "line": {"stroke": "currentColor", "stroke-width": "1.5", "fill": "none"},
    "thread": {"stroke": "currentColor", "stroke-dasharray": "2 3", "fill": "none"},
    "reach": {"stroke": "currentColor", "stroke-width": "1.5", "stroke-opacity": "0.6", "fill": "none"},
    "ring": {"stroke": "currentColor", "stroke-width": "1.5", "fill": "#ffffff"},
    "area": {"fill": "currentColor", "fill-opacity": "0.1", "stroke": "none"},
    "lasting": {"stroke": "currentColor", "stroke-width": "5", "stroke-linecap": "round", "fill": "none"},
    "requests": {"fill": "#9fb3c8"},
    "errors": {"fill": "#c62828"},
    "deployment": {"stroke": "#6639ba", "stroke-dasharray": "4 3"},
    "flag": {"fill": "#6639ba", "font-size": "11"},
    "touch": {"fill": "transparent"},
}
"""The attributes of each class; ``color`` sets ``currentColor``."""

SERIES: Final = tuple(f"series-{number}" for number in range(1, 7))
"""Styles of curves in one chart: each has another dash, as colours alone do not reach everybody."""

TONES: Final[dict[Verdict | None, str]] = {
    Verdict.WORSE: "worse",
    Verdict.BETTER: "better",
    Verdict.NO_DIFFERENCE: "alike",
    Verdict.TOO_FEW: "few",
    None: "baseline",
}
SIGNS: Final[dict[Verdict | None, str]] = {
    Verdict.WORSE: "▲",
    Verdict.BETTER: "▼",
    Verdict.NO_DIFFERENCE: "=",
    Verdict.TOO_FEW: "?",
    None: "●",
}
"""The verdicts as signs, which do not depend on colour."""


FONT: Final = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', 'Liberation Sans', Arial,"
    " sans-serif"
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart, ``height`` pixels high and as wide as its container; ``data`` is for scripts of the page."""

    content: Markup
    height: float
    title: str
    description: str
    has_links: bool = False
    data: Mapping[str, Value] = field(default_factory=dict)

    def __html__(self) -> str:
        """The chart in a page. One with links has the role ``group``: an ``img`` hides its children."""
        data: dict[str, Any] = {f"data-{name}": value for name, value in self.data.items()}
        return element(
            "svg",
            element("title", self.title),
            element("desc", self.description),
            self.content,
            class_="chart",
            role="group" if self.has_links else "img",
            width="100%",
            height=self.height,
            font_size=13,
            **data,
        )

    def placed(self, x: float, y: float, width: float) -> Markup:
        """The chart at a position in a picture, with its title."""
        heading = element("text", self.title, style="ink strong", x=0, y=14)
        inside = element("svg", self.content, y=26, width=width, height=self.height, overflow="visible")
        return element(
            "svg", heading, inside, x=x, y=y, width=width, height=self.height + 26, overflow="visible"
        )
