"""MLflow's current span, kept in step with ours."""

from __future__ import annotations

from typing import Any

from ...ledger import ledger
from ...model import Span, Trace
from ...recorder import LiveSpan, LiveTrace
from . import private
from .counterpart import Counterpart, counterpart_of, of_number


class MLflowCompanion:
    """Makes MLflow's side of our span current where ours is, and tells which of ours MLflow's current one is.

    Only inside requests: elsewhere MLflow's users find it as it is without us.
    """

    def attach(self, trace: Trace | None, span: Span | None, held: object) -> object:
        """Make our span current; where no request of ours is, take away what a server has left of another."""
        try:
            if held is not None:
                return private.activate(held)  # type: ignore[arg-type]
            if not isinstance(trace, LiveTrace) or not isinstance(span, LiveSpan):
                return private.activate(private.nothing()) if _current_request() else None
            counterpart = counterpart_of(trace)
            theirs = None if counterpart is None else counterpart.theirs(span)
            return None if theirs is None else private.activate(theirs)
        except Exception as error:  # noqa: BLE001 - another tracer's trouble
            ledger.failed("mlflow", error)
            return None

    def detach(self, token: Any) -> None:
        """Put back what was current."""
        private.deactivate(token)

    def held(self) -> object:
        """What is current, when it is of a request."""
        current = private.current()
        return None if current is None or _current_request() is None else private.holding(current)

    def innermost(self, span: Span | None) -> Span | None:
        """The span of ours that MLflow's current one stands for, when that is of the same trace."""
        counterpart, current = _current_request(), private.current()
        if span is None or counterpart is None or current is None:
            return span
        ours = counterpart.ours(f"{current.get_span_context().span_id:016x}")
        return span if ours is None or ours.trace_id != span.trace_id else ours


def _current_request() -> Counterpart | None:
    """The request of ours that MLflow's current span is of."""
    current = private.current()
    context = None if current is None else current.get_span_context()
    return None if context is None else of_number(context.trace_id)
