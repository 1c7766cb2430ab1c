"""Blocks around a ``yield`` in generators that are not decorated.

A generator has no context of its own. A context variable that it sets is visible to its caller, and is lost
if each step runs in another context, as when frameworks run the steps of plain generators in threads. So a
block in a generator is also identified by the frame of the generator: its span is current inside that frame
and not outside, unless the generator is a context manager.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from types import FrameType
from typing import Any, Final

from ..context import span_var, trace_var
from ..model import Span, Trace
from ..process import process

Location = tuple[Trace | None, Span | None]

_GENERATOR: Final = CO_GENERATOR | CO_ASYNC_GENERATOR
# If one of these resumes a generator, a ``with`` block or a test runs inside the generator's block.
_MANAGERS: Final = ("contextlib", "_pytest.fixtures")


class GeneratorBlock:
    """A block in a generator: its span, and what was current when it began."""

    __slots__ = ("frame", "is_visible", "outer", "span")

    def __init__(self, frame: FrameType, span: Any) -> None:
        self.span = span
        # Not the frame itself: a reference would prevent the collection of an abandoned generator.
        self.frame = id(frame)
        driver: FrameType | None = frame
        while driver is not None and driver.f_code.co_flags & _GENERATOR:
            driver = driver.f_back
        self.is_visible = driver is not None and _module(driver) in _MANAGERS
        self.outer: Location = trace_var.get(), span_var.get()
        process.locates = True
        process.generators.setdefault(self.frame, []).append(self)
        span.block = self

    def end(self) -> bool:
        """End the block; return whether its span is current here, and not one of another block."""
        is_current = _beside(trace_var.get(), span_var.get(), {self.frame})[1] is self.span
        if is_current:
            self.span.block = None
        else:  # it may stay current in the context where it began, and make the trace part of a cycle
            self.outer, self.span = (None, self.outer[1]), None
        blocks = process.generators[self.frame]
        blocks.remove(self)
        if not blocks:
            del process.generators[self.frame]
        return is_current


def generator_frame() -> FrameType | None:
    """Return the frame of the ``with`` statement whose ``__enter__`` calls this, if it is a generator's."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - there is no public function for it
    while frame is not None and _module(frame) == "contextlib":  # an ExitStack
        frame = frame.f_back
    return frame if frame is not None and frame.f_code.co_flags & _GENERATOR else None


def located() -> Location:
    """Return the current trace and span, with regard to the blocks of generators."""
    trace, span = trace_var.get(), span_var.get()
    generators = process.generators
    running: dict[int, GeneratorBlock] = {}
    nearest: GeneratorBlock | None = None
    is_outside = False
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None and generators:
        blocks = generators.get(id(frame))
        if blocks:
            running[id(frame)] = blocks[-1]
            if nearest is None and not is_outside:
                nearest = blocks[-1]
        elif frame.f_code is process.request_code:
            is_outside = True  # outer frames called the app, so they are outside of the request's trace
        frame = frame.f_back
    trace, span = _beside(trace, span, running)
    if nearest is None or _is_inside(span, nearest.span):
        return trace, span
    return nearest.span.trace, nearest.span


def _module(frame: FrameType) -> object:
    return frame.f_globals.get("__name__")


def _beside(trace: Trace | None, span: Span | None, running: Iterable[int]) -> Location:
    """Return the current trace and span, without blocks of generators that are not running."""
    while True:
        block: GeneratorBlock | None = getattr(span, "block", None)
        if block is None or block.is_visible or block.frame in running:
            return trace, span
        trace, span = block.outer
        if trace is None:
            trace = getattr(span, "trace", None)


def _is_inside(span: Any, outer: Span) -> bool:
    while span is not None and span is not outer:
        span = getattr(span, "outer", None)
    return span is outer
