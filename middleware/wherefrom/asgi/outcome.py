"""How a request ended."""

from __future__ import annotations

from typing import Final, Literal

from ..model import SpanStatus, SpanStatusCode
from ..recorder import LiveSpan

Outcome = Literal["completed", "client_closed", "cancelled", "failed"]

COMPLETED: Final = "completed"
CLIENT_CLOSED: Final = "client_closed"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"

_INCOMPLETE = SpanStatus(SpanStatusCode.ERROR, "the app returned without a complete response")


def record_outcome(root: LiveSpan, error: BaseException | None, *, client_closed: bool) -> Outcome:
    """The outcome of a request that was not simply completed; what was raised goes to the root span.

    A client that left is no error of the app: the exception that came of it is an event, not a status.
    """
    if client_closed:
        if error is not None:
            root.add_exception(error)
        return CLIENT_CLOSED
    if error is None:
        root.status = _INCOMPLETE
        return FAILED
    root.record_exception(error)
    # An exception that is neither of these is asyncio's or trio's cancellation.
    return FAILED if isinstance(error, (Exception, KeyboardInterrupt, SystemExit)) else CANCELLED
