"""The filter language: text to a tree, the tree to SQL, and the search that it serves."""

from __future__ import annotations

from ..stores.sqlite.search import Page, Query, search
from .parser import parse_filter
from .tree import format_filter

__all__ = ["Page", "Query", "format_filter", "parse_filter", "search"]
