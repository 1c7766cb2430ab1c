"""Where a request's trace belongs: found out once, beside the requests.

MLflow asks its server for the id of ``MLFLOW_EXPERIMENT_NAME`` each time that a trace begins, and waits for
it: some milliseconds when all is well, four minutes when the server is down. ``mlflow-tracing`` alone makes
no traces at all until it is told of an experiment.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Final

import mlflow
from mlflow.entities import LiveSpan as MLflowSpan
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider

from .._types import Scope
from ..context import accompany, trace_var
from ..process import ledger, logger
from ..tracing.recorder import LiveTrace
from . import private, shutdown
from .counterpart import Counterpart, ids, install
from .current import MLflowCompanion, server_span
from .processor import MLflowSpanProcessor

_FIRST_WAIT_S: Final = 3.0
_PAUSE_S: Final = 10.0


class ExperimentLookup:
    """The experiment that the environment names, as an id.

    ``wait_s``: how long to wait for the first answer of the server, when there is a name to ask for.
    """

    def __init__(self, wait_s: float = _FIRST_WAIT_S) -> None:
        self._name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        self._id = None if self._name else os.environ.get("MLFLOW_EXPERIMENT_ID")
        self._found = threading.Event()
        self._asking: threading.Thread | None = None
        if not self.usable():
            self._found.wait(wait_s)

    def usable(self) -> bool:
        """Whether a trace can begin without waiting for the server; when not, it is being asked."""
        if not self._name or self._id is not None or private.knows_its_experiment():
            return True
        if self._asking is None or not self._asking.is_alive():  # at first, and after a fork
            self._asking = threading.Thread(target=self._ask, name="wherefrom-mlflow-experiment", daemon=True)
            self._asking.start()
        return False

    def id_to_give(self) -> str | None:
        """The id to begin a trace with, or ``None`` when MLflow knows by itself."""
        if private.knows_its_experiment():
            return None
        return self._id or private.DEFAULT_EXPERIMENT

    def _ask(self) -> None:
        while not private.knows_its_experiment():
            try:
                self._id = private.experiment_id(self._name or "")
                break
            except Exception as error:  # noqa: BLE001 - the server is down, or says no
                ledger.failed("mlflow", error)
                time.sleep(_PAUSE_S)
        self._found.set()


class MLflowBridge:
    """Makes each of our requests a live MLflow trace, its root span MLflow's current one.

    What ``@mlflow.trace``, ``mlflow.start_span`` and autolog record in a request, its stream and its
    background tasks becomes a part of that one trace, and of ours. Our spans, metadata, session, user,
    request id, tags, state and previews are in MLflow's; what ``mlflow.update_current_trace`` says is in
    ours. Both have the same ids.

    Each side samples for itself: ``MLFLOW_TRACE_SAMPLING_RATIO`` decides what MLflow gets, our settings
    what we keep. MLflow's tracking URI, experiment, destination and processors are what the app makes
    of them.
    """

    def __init__(self) -> None:
        self._processor = MLflowSpanProcessor()
        self._prepared: TracerProvider | None = None
        self.is_shared = False
        self._experiment = ExperimentLookup()
        try:
            self._prepare()  # MLflow imports half a second's worth of modules with its first span
        except Exception as error:  # noqa: BLE001 - a tracking URI that MLflow cannot use, say
            ledger.failed("mlflow", error)
        accompany(MLflowCompanion())

    def request(self, trace: LiveTrace, scope: Scope) -> AbstractContextManager[object]:
        """A block in which the request's span is MLflow's current one."""
        if not self._experiment.usable():
            return mlflow.tracing.context(enabled=False)
        return _Request(trace, self, scope.get("path", ""))

    def flush(self, timeout: float) -> None:
        """Have MLflow send what waits. Its own flush knows no end while its server is down: ours does."""
        flushing = threading.Thread(
            target=mlflow.flush_trace_async_logging, name="wherefrom-mlflow-flush", daemon=True
        )
        flushing.start()
        flushing.join(timeout)
        if flushing.is_alive():
            logger.warning("MLflow has not sent all of its traces in %.1f seconds", timeout)
            shutdown.hold_nothing_up()

    def begin(self, trace: LiveTrace) -> MLflowSpan | None:
        """Start MLflow's root span for one of our traces; ``None`` when MLflow's tracing is off."""
        if not self._prepare():
            return None
        root = trace.root
        # A trace that others have begun may come here several times: MLflow needs one of its own for each.
        shared = root.parent_id is not None
        with ids(None if shared else trace.info.trace_id, root.span_id):
            return mlflow.start_span_no_context(
                root.name,
                span_type=root.span_type,
                start_time_ns=root.start_time_ns,
                experiment_id=self._experiment.id_to_give(),
            )

    def _prepare(self) -> bool:
        """See to it that MLflow's provider of spans has our processor; it makes a new one now and then."""
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


class _Request:
    """One request: entered before the app, left when it has returned."""

    def __init__(self, trace: LiveTrace, bridge: MLflowBridge, path: str) -> None:
        self._trace = trace
        self._bridge = bridge
        self._path = path
        self._tokens = ExitStack()
        self._counterpart: Counterpart | None = None

    def __enter__(self) -> Callable[[], None]:
        try:
            theirs = server_span(self._trace)
            if theirs is None:
                self._begin()
            else:
                self._follow(theirs, owned=False)
        except BaseException:
            self._tokens.close()
            raise
        return self._tell

    def _tell(self) -> None:
        """The last byte is about to go out, and with it a server span of another's may end."""
        if self._counterpart is not None and not self._counterpart.owned:
            self._counterpart.tell(self._trace)

    def _follow(self, root: MLflowSpan, *, owned: bool) -> None:
        self._counterpart = Counterpart(
            self._trace, root, owned=owned, path=self._path, is_shared=self._bridge.is_shared
        )
        self._trace.followers += (self._counterpart,)

    def _begin(self) -> None:
        # What is current was left by another request, or is around the server: no part of this one.
        self._activate(private.nothing())
        root = self._bridge.begin(self._trace)
        if root is None:
            return
        self._activate(root)  # also one that MLflow's sampler drops: so are then its children
        if private.is_recorded(root):
            self._follow(root, owned=True)
        else:
            private.mark(root, None)

    def _activate(self, span: Any) -> None:
        self._tokens.callback(private.deactivate, private.activate(span))

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        try:
            if self._counterpart is not None:
                self._counterpart.close_abandoned(error)
                self._counterpart.agree(self._trace)
        finally:
            # In another context, as at the end of a loop, there is nothing of ours to put back.
            if trace_var.get() is self._trace:
                self._tokens.close()
