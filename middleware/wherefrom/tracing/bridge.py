"""Bridges: what connects another tracer of this process, such as OpenTelemetry or MLflow, to our traces.

To add a tracer, subclass ``Bridge`` and ``BridgeSession`` and override what the tracer needs. What their
methods raise is counted and never reaches the app.
"""

# ruff: noqa: ARG002 - the methods of the protocols do nothing until a bridge overrides them

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Final, Protocol

from .._clock import monotonic
from .._types import Message, Scope, Send
from ..model import Span
from ..process import ledger
from ..settings import Settings
from .live import LiveSpan, LiveTrace

# Each imports another tracer, so none is imported before it is asked for.
_BRIDGES: Final = {
    "opentelemetry": ("wherefrom.otel", "OpenTelemetryBridge"),
    "mlflow": ("wherefrom.mlflow", "MLflowBridge"),
}

# Messages that may be the last of a response, and the one that accepts a websocket.
_SYNCED: Final = frozenset(
    {
        "http.response.body",
        "http.response.pathsend",
        "http.response.trailers",
        "http.response.zerocopysend",
        "websocket.accept",
        "websocket.close",
        "websocket.http.response.body",
    }
)


class BridgeSession(Protocol):
    """Another tracer's part in one trace. It holds no reference to the trace, which refers to it."""

    def on_span_start(self, span: LiveSpan) -> None:
        """A span of ours has started."""
        return

    def on_span_end(self, span: LiveSpan) -> None:
        """A span is complete: called for each when its trace is over, the root last, and for late ones."""
        return

    def sync(self, trace: LiveTrace) -> None:
        """Exchange what each side knows of the trace; the last write wins.

        Called around ``update_current_trace``, before the last byte of a response is sent, and when the trace
        is complete and about to be written.
        """
        return

    def close(self, trace: LiveTrace, error: BaseException | None) -> None:
        """The app has returned, or raised ``error``: make current again what was before the request."""
        return

    def activate(self, span: Span | None, held: object) -> object:
        """Make a span of ours current in the other tracer, or what ``held`` returned there earlier.

        ``span`` is ``None`` where no trace is current any more. Returns a token, or ``None`` for no change.
        Never raises.
        """
        return None

    def deactivate(self, token: object) -> None:
        """Make current again what was current before ``activate`` returned this token."""
        return

    def held(self) -> object:
        """Return what is current in the other tracer, for a later ``activate``."""
        return None

    def innermost(self, span: Span | None) -> Span | None:
        """Return our span for what is current in the other tracer, if it is below ``span``; or ``span``."""
        return span


class Bridge(Protocol):
    """Connects another tracer of this process."""

    def on_request(self, trace: LiveTrace, scope: Scope | None) -> BridgeSession | None:
        """Take part in a trace that starts, in its own context; ``None`` to take no part.

        ``scope`` is ``None`` for a trace that starts outside a request, if the bridge is one of
        ``process.bridges``.
        """
        return None

    def flush(self, timeout: float) -> object:
        """Send what the tracer has buffered, within ``timeout`` seconds: the server is about to stop."""
        return None


def open_bridges(settings: Settings, given: Sequence[Bridge] = ()) -> tuple[Bridge, ...]:
    """Return the bridges that are given, or those of the settings, and switch on instrumentors.

    Instrumentors need OpenTelemetry's bridge: it is made if it is not among them.

    Raises:
        MissingExtraError: the package that one of them needs is not installed.
        SettingsError: an instrumentor is not installed.
    """
    # In the order of the table, whatever that of the setting: MLflow's is inside of OpenTelemetry's.
    names = () if given else settings.bridges
    bridges = tuple(given) or tuple(_class_of(name)() for name in _BRIDGES if name in names)
    if settings.instrument:
        kind = _class_of("opentelemetry")
        if not any(isinstance(bridge, kind) for bridge in bridges):
            bridges = (kind(), *bridges)
        next(bridge for bridge in bridges if isinstance(bridge, kind)).instrument(*settings.instrument)
    return bridges


def _class_of(name: str) -> Any:
    module, attribute = _BRIDGES[name]
    return getattr(import_module(module), attribute)


def open_sessions(bridges: Iterable[Bridge], trace: LiveTrace, scope: Scope | None) -> None:
    """Have each bridge take part in a trace."""
    trace.bridges = tuple(bridges)
    for bridge in trace.bridges:
        try:
            session = bridge.on_request(trace, scope)
        except Exception as error:  # noqa: BLE001 - another tracer's failure
            ledger.failed(type(bridge).__name__, error)
        else:
            if session is not None:
                trace.sessions += (session,)


def sync_sessions(trace: LiveTrace) -> None:
    """Exchange with other tracers what is known of a trace."""
    for session in trace.sessions:
        try:
            session.sync(trace)
        except Exception as error:  # noqa: BLE001 - another tracer's failure
            ledger.failed(type(session).__name__, error)


def end_in_sessions(trace: LiveTrace, spans: Iterable[Span]) -> None:
    """Give spans that are complete to other tracers."""
    for span in spans:
        for session in trace.sessions:
            try:
                session.on_span_end(span)
            except Exception as error:  # noqa: BLE001 - another tracer's failure
                ledger.failed(type(session).__name__, error)


def close_sessions(trace: LiveTrace, error: BaseException | None) -> None:
    """The app has returned: end what bridges made current, in reverse order."""
    for session in reversed(trace.sessions):
        try:
            session.close(trace, error)
        except Exception as failure:  # noqa: BLE001 - another tracer's failure
            ledger.failed(type(session).__name__, failure)


def syncing(send: Send, trace: LiveTrace) -> Send:
    """Wrap ``send`` to sync before a message that may be the last: another's server span ends with it."""

    async def send_synced(message: Message) -> None:
        if message["type"] in _SYNCED and not message.get("more_body") and not message.get("more_trailers"):
            sync_sessions(trace)
        await send(message)

    return send_synced


def flush_bridges(bridges: Sequence[Bridge], timeout: float) -> None:
    """Flush all bridges within ``timeout`` seconds together."""
    deadline = monotonic() + timeout
    for bridge in bridges:
        try:
            bridge.flush(max(deadline - monotonic(), 0))
        except Exception as error:  # noqa: BLE001 - another tracer's failure
            ledger.failed(type(bridge).__name__, error)
