"""The request context: the current trace and span, for handlers, background tasks and logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any, ClassVar

from contextvars_extras import ContextVarsRegistry

from . import keys
from .model import Span, Trace

__all__ = [
    "Place",
    "RequestContext",
    "Tokens",
    "context",
    "enter",
    "here",
    "innermost",
    "leave",
    "span_var",
    "trace_var",
]


class RequestContext(ContextVarsRegistry):  # type: ignore[misc] # the package has no types
    """The current trace and span, and the request's ids; ``None`` or empty outside a request."""

    _registry_allocate_on_setattr: ClassVar[bool] = False

    trace: Trace | None = None
    span: Span | None = None

    @property
    def trace_id(self) -> str | None:
        """``"tr-"`` + 32 hex."""
        return None if self.trace is None else self.trace.info.trace_id

    @property
    def request_id(self) -> str | None:
        """The accepted or generated request id."""
        return None if self.trace is None else self.trace.info.client_request_id

    @property
    def session_id(self) -> str | None:
        """The accepted session id, from a header or ``update_current_trace``."""
        return self.metadata.get(keys.SESSION)

    @property
    def user_id(self) -> str | None:
        """The accepted user id, hashed when ``user_hash_key`` is set."""
        return self.metadata.get(keys.USER)

    @property
    def metadata(self) -> dict[str, str]:
        """The trace's metadata so far."""
        return {} if self.trace is None else self.trace.info.trace_metadata


context = RequestContext()

# Requests use the ContextVars directly: the registry's descriptors cost one more call each.
trace_var: ContextVar[Trace | None] = RequestContext.trace.context_var  # type: ignore[union-attr]
span_var: ContextVar[Span | None] = RequestContext.span.context_var  # type: ignore[union-attr]


# The sessions of a live trace with other tracers: see ``tracing.bridge.BridgeSession``, in a layer above.
_Activated = Sequence[tuple[Any, object]]
_Held = Mapping[Any, object]

Tokens = tuple[Token[Trace | None], Token[Span | None], _Activated]
Place = tuple[Trace | None, Span | None, _Held | None]


def enter(trace: Trace | None, span: Span | None, held: _Held | None = None) -> Tokens:
    """Make a trace and a span current, or the result of ``here``; pass the return value to ``leave``."""
    # If no trace becomes current, the sessions of the previous one clear their tracer's context.
    sessions = getattr(trace_var.get() if trace is None else trace, "sessions", ())
    known = held or {}
    activated = [(session, session.activate(span, known.get(session))) for session in sessions]
    return trace_var.set(trace), span_var.set(span), activated


def leave(tokens: Tokens) -> None:
    """Restore what was current before ``enter``."""
    try:
        trace_var.reset(tokens[0])
        span_var.reset(tokens[1])
    except ValueError:
        return  # a generator that is closed from another context, in which nothing was entered
    for session, token in reversed(tokens[2]):
        if token is not None:
            session.deactivate(token)


def here() -> Place:
    """Return what is current, to pass to ``enter`` later."""
    trace = trace_var.get()
    sessions = getattr(trace, "sessions", ())
    return trace, span_var.get(), {session: session.held() for session in sessions} if sessions else None


def innermost() -> Span | None:
    """Return the innermost span that is open here, whichever tracer opened it."""
    span = span_var.get()
    sessions = getattr(trace_var.get(), "sessions", ())
    found = [session.innermost(span) for session in sessions] if sessions else ()
    below = [other for other in found if other is not None and other is not span]
    # If several tracers have opened spans, the one opened last is the innermost.
    return max(below, key=lambda other: other.start_time_ns) if below else span
