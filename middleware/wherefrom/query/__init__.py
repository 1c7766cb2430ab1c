"""The filter language: text to a tree and back, what can be asked for, and the order of what is found."""

from __future__ import annotations

from .parser import parse_filter
from .tree import format_filter

__all__ = ["format_filter", "parse_filter"]
