"""Charts as SVG, drawn on the server: pure functions, from figures to markup.

Places along the x axis are percentages, so a chart takes the width it is given and its text keeps its size.
Every element has a class for the stylesheet of the page, and the same look, in light colours, as attributes:
so a chart cut out of the page is a picture in itself.
"""

from __future__ import annotations

__all__ = ["draw"]

from .picture import draw
