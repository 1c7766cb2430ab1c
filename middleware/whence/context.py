"""The request context: what handlers, background tasks and logs see of the current trace."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import ClassVar

from contextvars_extras import ContextVarsRegistry

from . import keys
from .model import Span, Trace

__all__ = ["RequestContext", "Tokens", "context", "enter", "leave", "span_var", "trace_var"]


class RequestContext(ContextVarsRegistry):  # type: ignore[misc] # the package has no types
    """The current trace and span, and what is known of the request; ``None`` or empty outside of one."""

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
        """The accepted session id (a header, or ``update_current_trace``)."""
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

# The hot path works on the ContextVars themselves: the registry's descriptors cost a call more.
trace_var: ContextVar[Trace | None] = RequestContext.trace.context_var  # type: ignore[union-attr]
span_var: ContextVar[Span | None] = RequestContext.span.context_var  # type: ignore[union-attr]

Tokens = tuple[Token[Trace | None], Token[Span | None]]


def enter(trace: Trace | None, span: Span | None) -> Tokens:
    """Make a trace and a span current; give the result to ``leave``."""
    return trace_var.set(trace), span_var.set(span)


def leave(tokens: Tokens) -> None:
    """Put back what was current before ``enter``."""
    try:
        trace_var.reset(tokens[0])
        span_var.reset(tokens[1])
    except ValueError:
        pass  # a generator closed from another context: there is nothing of ours to put back there
