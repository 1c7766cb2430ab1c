"""The bridge to MLflow, its span processor, and the lookup of its experiment.

When a trace starts, MLflow asks its server for the id of ``MLFLOW_EXPERIMENT_NAME`` and waits: some
milliseconds normally, four minutes if the server is down. ``mlflow-tracing`` alone records nothing until an
experiment is set. ``ExperimentLookup`` asks in a thread instead, so that no request waits.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

import mlflow
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SDKSpan
from opentelemetry.trace import SpanKind

from .._types import Scope
from ..process import ledger, logger
from ..tracing.api import current_trace
from ..tracing.bridge import Bridge
from ..tracing.live import LiveTrace
from . import private
from .private import are_given, ids, install
from .session import MLflowSession, server_span, session_of, session_of_number

_FIRST_WAIT_S: Final = 3.0  # the first request waits this long, so that its trace is in the right experiment
_PAUSE_S: Final = 10.0  # between two lookups, while the server is down


class ExperimentLookup:
    """Looks up the id of the experiment that the environment names.

    ``wait_s`` is how long the first request may wait for the server, if there is a name to look up.
    """

    def __init__(self, wait_s: float = _FIRST_WAIT_S) -> None:
        self._name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        self._id = None if self._name else os.environ.get("MLFLOW_EXPERIMENT_ID")
        self._found = threading.Event()
        self._asking: threading.Thread | None = None
        if not self.usable():
            self._found.wait(wait_s)

    def usable(self) -> bool:
        """Whether a trace can start without waiting for the server; if not, start a lookup."""
        if not self._name or self._id is not None or private.knows_its_experiment():
            return True
        if (
            self._asking is None or not self._asking.is_alive()
        ):  # the first time in a process, also after a fork
            self._asking = threading.Thread(target=self._ask, name="wherefrom-mlflow-experiment", daemon=True)
            self._asking.start()
        return False

    def id_to_give(self) -> str | None:
        """Return the id to start a trace with, or ``None`` if MLflow finds it without the server."""
        if private.knows_its_experiment():
            return None
        if self._name:  # MLflow would query the server for it during the request
            return self._id or private.FIRST_EXPERIMENT
        return self._id or private.DEFAULT_EXPERIMENT

    def _ask(self) -> None:
        while not private.knows_its_experiment():
            try:
                self._id = private.experiment_id(self._name or "")
                break
            except Exception as error:  # noqa: BLE001 - the server is down, or refuses
                ledger.failed("mlflow", error)
                time.sleep(_PAUSE_S)
        self._found.set()


class MLflowSpanProcessor(SpanProcessor):
    """Adds the spans that MLflow records in our requests to our traces; the bridge registers it.

    A span is added when it starts, as our own are, so one that ends after its request is stored late.
    """

    def on_start(self, span: SDKSpan, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """A span has started; those that the bridge started are ours already."""
        try:
            if are_given():
                return
            session = session_of_number(span.get_span_context().trace_id)
            if session is not None:
                session.bring(span)
            elif span.parent is None and span.kind is SpanKind.SERVER:
                _adopt(span)
        except Exception as error:  # noqa: BLE001 - the app goes on
            ledger.failed("mlflow", error)

    def on_end(self, span: ReadableSpan) -> None:
        """A span has ended."""
        try:
            context = span.get_span_context()
            session = None if context is None else session_of_number(context.trace_id)
            if session is not None:
                session.ended(span)
        except Exception as error:  # noqa: BLE001 - the app goes on
            ledger.failed("mlflow", error)

    def shutdown(self) -> None:
        """Do nothing: the process closes our queue, not MLflow."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - nothing is held back
        """Do nothing: spans are added to their trace when they end."""
        return True


def _adopt(span: SDKSpan) -> None:
    """A server span has started: that of the current request, or of one that the app sends to another app."""
    trace = current_trace()
    session = None if trace is None or trace.over else session_of(trace)
    if trace is None or session is None or not session.owned:
        return
    if (span.attributes or {}).get("url.path", session.path) == session.path:
        session.adopt(trace, span)


class MLflowBridge(Bridge):
    """Makes each request a live MLflow trace, whose root span is MLflow's current span.

    Spans that ``@mlflow.trace``, ``mlflow.start_span`` and autologging record in a request, its stream and
    its background tasks become part of that trace and of ours. MLflow's trace gets our spans, metadata,
    session, user, request id, tags, state and previews; ours gets what ``mlflow.update_current_trace`` sets.
    Both have the same ids.

    Each side samples on its own: ``MLFLOW_TRACE_SAMPLING_RATIO`` for MLflow, our settings for our store. The
    bridge does not change MLflow's tracking URI, experiment, destination or processors.
    """

    def __init__(self) -> None:
        self._processor = MLflowSpanProcessor()
        self._prepared: TracerProvider | None = None
        self.is_shared = False
        self._experiment = ExperimentLookup()
        try:
            self._prepare()  # MLflow imports modules for half a second at its first span
        except Exception as error:  # noqa: BLE001 - a tracking URI that MLflow cannot use, say
            ledger.failed("mlflow", error)

    def on_request(self, trace: LiveTrace, scope: Scope | None) -> MLflowSession | None:
        """Start MLflow's trace of the request, or join the one that its server span has started."""
        if scope is None:
            return None
        session = MLflowSession(scope.get("path", ""), is_shared=self.is_shared)
        try:
            if not self._experiment.usable():
                session.pause()
            elif (theirs := server_span(trace)) is not None:
                session.take_root(trace, theirs, owned=False)
            else:
                # Not of this request: another request left it current, or it surrounds the server.
                session.make_current(private.nothing())
                self._begin(trace, session)
        except BaseException:
            session.restore()
            raise
        return session

    def flush(self, timeout: float) -> None:
        """Flush MLflow's queue within the timeout; MLflow's own flush never ends while its server is down."""
        flushing = threading.Thread(
            target=mlflow.flush_trace_async_logging, name="wherefrom-mlflow-flush", daemon=True
        )
        flushing.start()
        flushing.join(timeout)
        if flushing.is_alive():
            logger.warning("MLflow has not sent all of its traces in %.1f seconds", timeout)
            private.exit_without_waiting()

    def _begin(self, trace: LiveTrace, session: MLflowSession) -> None:
        if not self._prepare():
            return
        root = trace.root
        # Several of our traces may share their caller's id. MLflow needs an id of its own for each.
        shared = root.parent_id is not None
        with ids(None if shared else trace.info.trace_id, root.span_id):
            theirs = mlflow.start_span_no_context(
                root.name,
                span_type=root.span_type,
                start_time_ns=root.start_time_ns,
                experiment_id=self._experiment.id_to_give(),
            )
        session.make_current(
            theirs
        )  # also a span that MLflow's sampler drops: its children are dropped with it
        if private.is_recorded(theirs):
            session.take_root(trace, theirs, owned=True)
        else:
            private.mark(theirs, None)

    def _prepare(self) -> bool:
        """Register our processor with MLflow's tracer provider, which MLflow replaces now and then."""
        provider = mlflow.tracing.get_bridged_tracer_provider()
        if provider is self._prepared:
            return True
        if not isinstance(provider, TracerProvider):
            return False
        install(provider, private.TRACER)
        provider.add_span_processor(self._processor)
        self._prepared = provider
        self.is_shared = provider is otel.get_tracer_provider()
        return True
