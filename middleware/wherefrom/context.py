"""The request context: what handlers, background tasks and logs see of the current trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


_Attached = Sequence[tuple[Companion, object]]
_Held = Mapping[Companion, object]

Tokens = tuple[Token[Trace | None], Token[Span | None], _Attached]
Place = tuple[Trace | None, Span | None, _Held | None]

_companions: tuple[Companion, ...] = ()


def accompany(companion: Companion | None) -> None:
    """Keep another tracer in step from now on, in the place of one of the same kind; or none at all."""
    global _companions
    others = [other for other in _companions if type(other) is not type(companion)]
    _companions = () if companion is None else (*others, companion)


def enter(trace: Trace | None, span: Span | None, held: _Held | None = None) -> Tokens:
    """Make a trace and a span current, or what ``here`` was; give the result to ``leave``."""
    attached = _attach(trace, span, held or {}) if _companions else ()
    return trace_var.set(trace), span_var.set(span), attached


def leave(tokens: Tokens) -> None:
    """Put back what was current before ``enter``."""
    try:
        trace_var.reset(tokens[0])
        span_var.reset(tokens[1])
    except ValueError:
        return  # a generator closed from another context: there is nothing of ours to put back there
    for companion, token in reversed(tokens[2]):
        if token is not None:
            companion.detach(token)


def here() -> Place:
    """What is current, to ``enter`` it again."""
    held = {companion: companion.held() for companion in _companions} if _companions else None
    return trace_var.get(), span_var.get(), held


def innermost() -> Span | None:
    """The innermost span that is open here, whichever tracer's."""
    span = span_var.get()
    if not _companions:
        return span
    found = [companion.innermost(span) for companion in _companions]
    below = [other for other in found if other is not None and other is not span]
    # Where several tracers have opened one, the last opened is the inner one.
    return max(below, key=lambda other: other.start_time_ns) if below else span


def _attach(trace: Trace | None, span: Span | None, held: _Held) -> _Attached:
    return [(companion, companion.attach(trace, span, held.get(companion))) for companion in _companions]
