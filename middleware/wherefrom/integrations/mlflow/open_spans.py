"""Which spans are open, and which of them nobody will end."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import ReferenceType, ref


class OpenSpans:
    """MLflow's open spans of one request, by id, each with the task that it was begun in."""

    def __init__(self) -> None:
        self._begun_in: dict[str, ReferenceType[asyncio.Task[Any]] | None] = {}

    def begin(self, span_id: str) -> None:
        """A span has been begun here."""
        self._begun_in[span_id] = _current_task()

    def end(self, span_id: str) -> None:
        """It has ended."""
        self._begun_in.pop(span_id, None)

    def abandoned(self) -> list[str]:
        """Those whose task is over, or the one that asks: at the end of a request, what it has left open.

        A span of a task that still runs is that task's own to end.
        """
        return [span_id for span_id, begun_in in self._begun_in.items() if not _goes_on(begun_in)]


def _goes_on(begun_in: ReferenceType[asyncio.Task[Any]] | None) -> bool:
    task = None if begun_in is None else begun_in()
    return task is not None and not task.done() and begun_in != _current_task()


def _current_task() -> ReferenceType[asyncio.Task[Any]] | None:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread, or trio
        return None
    return None if task is None else ref(task)
