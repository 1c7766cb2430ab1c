"""The request context: what handlers, background tasks and logs see of the current trace."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import ClassVar, Protocol

from contextvars_extras import ContextVarsRegistry

from . import keys
from .model import Span, Trace

__all__ = [
    "Companion",
    "Place",
    "RequestContext",
    "Tokens",
    "accompany",
    "context",
    "enter",
    "here",
    "innermost",
    "leave",
    "span_var",
    "trace_var",
]


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

Tokens = tuple[Token[Trace | None], Token[Span | None], object]
Place = tuple[Trace | None, Span | None, object]


class Companion(Protocol):
    """Another tracer of this process, whose current span is kept in step with ours. It never raises."""

    def attach(self, trace: Trace | None, span: Span | None, held: object) -> object:
        """Make our span current there too, or what was ``held`` there; the result is for ``detach``."""

    def detach(self, token: object) -> None:
        """Put back what was current there."""

    def held(self) -> object:
        """What is current there, to ``attach`` it again."""

    def innermost(self, span: Span | None) -> Span | None:
        """The open span of that tracer below ``span``, where it has made one current since; or ``span``."""


_companion: Companion | None = None


def accompany(companion: Companion | None) -> None:
    """Keep another tracer in step from now on, or none."""
    global _companion
    _companion = companion


def enter(trace: Trace | None, span: Span | None, held: object = None) -> Tokens:
    """Make a trace and a span current, or what ``here`` was; give the result to ``leave``."""
    token = None if _companion is None else _companion.attach(trace, span, held)
    return trace_var.set(trace), span_var.set(span), token


def leave(tokens: Tokens) -> None:
    """Put back what was current before ``enter``."""
    try:
        trace_var.reset(tokens[0])
        span_var.reset(tokens[1])
    except ValueError:
        return  # a generator closed from another context: there is nothing of ours to put back there
    if tokens[2] is not None and _companion is not None:
        _companion.detach(tokens[2])


def here() -> Place:
    """What is current, to ``enter`` it again."""
    return trace_var.get(), span_var.get(), None if _companion is None else _companion.held()


def innermost() -> Span | None:
    """The innermost span that is open here, whichever tracer's."""
    span = span_var.get()
    return span if _companion is None else _companion.innermost(span)
