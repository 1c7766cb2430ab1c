"""A chart, ready to be put into a page or into a larger picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from .markup import element

FONT: Final = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', 'Liberation Sans', Arial,"
    " sans-serif"
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What was drawn, ``height`` pixels high and as wide as there is room."""

    content: Markup
    height: float
    title: str
    description: str
    has_links: bool = False

    def __html__(self) -> str:
        """The chart in a page. One with links is a group: what is an image has nothing inside to go to."""
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
        )

    def placed(self, x: float, y: float, width: float) -> Markup:
        """The chart in a picture."""
        heading = element("text", self.title, look="ink strong", x=0, y=14)
        inside = element("svg", self.content, y=26, width=width, height=self.height, overflow="visible")
        return element(
            "svg", heading, inside, x=x, y=y, width=width, height=self.height + 26, overflow="visible"
        )
