"""Litestar: records exceptions that Litestar handles. Traces are named after routes without it.

Litestar(..., after_exception=[record_exception])
"""

from __future__ import annotations

from litestar.types import Scope

from . import frameworks

__all__ = ["record_exception"]


def record_exception(exception: Exception, scope: Scope) -> None:
    """Record an exception that Litestar turns into a response; for ``after_exception``."""
    frameworks.record_exception(scope, exception)
