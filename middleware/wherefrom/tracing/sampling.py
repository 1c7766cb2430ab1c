"""Sampling: by rate, by route, by the caller's decision, and by outcome (errors, slow requests)."""

from __future__ import annotations

from ..model import TraceState
from ..propagation import SpanContext
from ..settings import Settings

_RANDOM_SPACE = 1 << 56


class Sampler:
    """Decides which traces are stored; for one trace the same in every process with these settings.

    ``keeps_all`` is true when every trace is stored, ``keeps_none`` when none is,
    ``drops_success`` when of our own traces only errors are. ``caller_sampled`` is the
    decision of the caller whose trace was joined, and ``None`` for a trace of our own.
    """

    def __init__(self, settings: Settings) -> None:
        self._rate = settings.sample_rate
        self._routes = settings.sample_routes
        self._keep_errors = settings.keep_errors
        self._slow_ms = settings.keep_slower_than_ms
        self._decides_late = self._keep_errors or self._slow_ms is not None or bool(self._routes)
        self.keeps_all = self._rate == 1 and not self._routes and settings.upstream != "continue"
        # Without an error, and whatever its duration.
        self.drops_success = not self._rate and not self._routes and self._slow_ms is None
        self.keeps_none = not self._rate and not self._decides_late and settings.upstream != "continue"

    def starts(self, trace_id: str, caller: SpanContext | None) -> bool:
        """Whether a trace that starts may be stored."""
        chosen = _drawn(trace_id, self._rate) if caller is None else caller.sampled
        return chosen or self._decides_late

    def tells(self, trace_id: str, caller_sampled: bool | None) -> bool:
        """Return the sampled flag for outgoing requests: the caller's decision, or ours at the start.

        A decision at the end of the trace comes too late for it.
        """
        return _drawn(trace_id, self._rate) if caller_sampled is None else caller_sampled

    def keeps(
        self,
        trace_id: str,
        caller_sampled: bool | None,
        route: str | None,
        state: TraceState,
        duration_ns: int,
    ) -> bool:
        """Whether a finished trace is stored: by its rate, or because it failed or was slow.

        The rate is that of the caller's decision, of the route, or ``sample_rate``, in this order.
        """
        if caller_sampled is None:
            chosen = _drawn(trace_id, self._routes.get(route or "", self._rate))
        else:
            chosen = caller_sampled
        if chosen or (self._keep_errors and state is TraceState.ERROR):
            return True
        return self._slow_ms is not None and duration_ns > self._slow_ms * 1_000_000


def _drawn(trace_id: str, rate: float) -> bool:
    # By the random 56 bits at the end of the id, so that every process decides alike.
    return int(trace_id[-14:], 16) < rate * _RANDOM_SPACE
