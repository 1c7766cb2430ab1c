"""The filter language: text to a tree and back, fields, orders, page tokens and completion."""

from __future__ import annotations

from .parser import parse_filter
from .tree import format_filter

__all__ = ["format_filter", "parse_filter"]
