"""The pages, in the order in which they stand in the navigation."""

from __future__ import annotations

from typing import Final

from ..page import Page
from . import compare, deployments, traces

HOME: Final = "/traces"
PAGES: Final[tuple[Page, ...]] = (*traces.PAGES, *compare.PAGES, *deployments.PAGES)
