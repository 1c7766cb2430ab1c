"""Which spans an exporter is done with, for as long as somebody may hand them in again."""

from __future__ import annotations

import weakref

from ..model import Span


class Mark(weakref.ref[Span]):
    """That a span is done with, and why it was refused, if it was."""

    __slots__ = ("key", "refusal")

    key: int
    refusal: str | None


class Settled:
    """Spans that were acknowledged or refused.

    A span that ends after its trace was handed over comes in both, its trace and a fragment, as the same
    object; and a batch of which a part got through comes again whole. Both must not send a span twice. The
    marks are weak: a span that nobody can hand in any more takes no room. ``marks`` holds them by their
    ``id``.
    """

    def __init__(self) -> None:
        self.marks: dict[int, Mark] = {}

    def add(self, span: Span, refusal: str | None = None) -> None:
        """Remember that a span is done with; ``refusal`` says why it was not taken."""
        mark = Mark(span, self._forget)
        mark.key, mark.refusal = id(span), refusal
        self.marks[mark.key] = mark

    def _forget(self, mark: weakref.ref[Span]) -> None:
        self.marks.pop(mark.key, None)  # type: ignore[attr-defined]
