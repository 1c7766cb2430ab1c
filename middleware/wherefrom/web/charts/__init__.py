"""Charts as SVG, drawn on the server by pure functions.

Positions along the x axis are percentages, so a chart fills its width while its text keeps its size. Each
element has a class for the stylesheet of the page and the same style, in light colours, as attributes, so an
exported chart looks right without the stylesheet.
"""

from __future__ import annotations

__all__ = ["draw"]

from .picture import draw
