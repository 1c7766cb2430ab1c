"""What became of the traces of this process: counters, and complaints at most once a minute."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ._capture.values import clean_text

logger = logging.getLogger("wherefrom")

_COMPLAINT_INTERVAL_S = 60.0


@dataclass(slots=True, frozen=True)
class Stats:
    """Counts since the process started.

    ``recorded``: traces handed to a sink. ``stored``: traces a store or exporter took. ``dropped``: traces
    and spans that are lost or left out, by reason. ``refused_headers``: header values that were not
    accepted, by header. ``errors``: failures inside Wherefrom, by place. ``queue_depth``: traces waiting.
    ``queue_bytes``: the memory they take, about.
    """

    recorded: int = 0
    stored: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    refused_headers: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    queue_depth: int = 0
    queue_bytes: int = 0


@dataclass(slots=True, frozen=True)
class ProcessReport:
    """The counters of one process that records traces; times in ms since the epoch.

    ``queues`` are the traces that wait, by destination. ``retention_days`` is after how long that process
    deletes traces from the store, ``None`` for never.
    """

    host: str
    pid: int
    started: int
    reported: int
    stats: Stats = field(default_factory=Stats)
    queues: dict[str, int] = field(default_factory=dict)
    retention_days: float | None = None


class Ledger:
    """Counts, from any thread, and tells the log of trouble without flooding it.

    ``recorded`` (traces handed to a sink) is counted by plain ``+= 1``: once a request a lock is dear, and
    under the GIL no other thread runs between its steps.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Start again from nothing, as a forked worker must."""
        # Re-entrant: a generator that the garbage collector ends inside the lock counts here too.
        self._lock = threading.RLock()
        self.recorded = 0
        self._stored = 0
        self._dropped: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._complained: dict[str, float] = {}

    def stored(self, count: int) -> None:
        """A store or exporter took traces."""
        with self._lock:
            self._stored += count

    def dropped(self, reason: str, count: int = 1) -> None:
        """Traces or spans are lost, or left out."""
        with self._lock:
            self._dropped[reason] += count

    def refused(self, header: str) -> None:
        """A header's value was not accepted."""
        with self._lock:
            self._refused[header] += 1

    def failed(self, place: str, error: BaseException) -> None:
        """Something inside Wherefrom went wrong at ``place``: count it, log it at most once a minute."""
        now = self._clock()
        with self._lock:
            self._errors[place] += 1
            silent = now - self._complained.get(place, -_COMPLAINT_INTERVAL_S) < _COMPLAINT_INTERVAL_S
            if not silent:
                self._complained[place] = now
        if not silent:
            with suppress(Exception):  # the app's own log handlers and filters may raise
                logger.warning(
                    "%s failed (%s: %s); the app goes on, for a minute more failures here are only counted",
                    place,
                    type(error).__name__,
                    clean_text(error),
                    exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
                )

    def read(self, queue_depth: int = 0, queue_bytes: int = 0) -> Stats:
        """The counts now."""
        with self._lock:
            return Stats(
                recorded=self.recorded,
                stored=self._stored,
                dropped=dict(self._dropped),
                refused_headers=dict(self._refused),
                errors=dict(self._errors),
                queue_depth=queue_depth,
                queue_bytes=queue_bytes,
            )


ledger = Ledger()
"""The process's own: what ``wherefrom.stats()`` reads."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ledger.reset)
