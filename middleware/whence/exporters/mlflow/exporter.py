"""The exporter to an MLflow server: a sink that sends traces whole."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ...exceptions import StoreError, StoreUnavailableError
from ...model import Trace
from ..endpoint import DEFAULT_PATH, Endpoint, checked_headers
from . import presence
from .api import MLflowAPI, server_endpoint
from .experiments import DEFAULT, Experiments
from .infos import TraceInfos
from .spans import MLflowSpans

if TYPE_CHECKING:
    from ssl import SSLContext

_AT_ONCE: Final = 128
_LONGEST_CLOSE_S: Final = 0.2
_EXPERIMENT: Final = "x-mlflow-experiment-id"


class MLflowExporter:
    """Sends traces to an MLflow server: spans by OTLP, then what it keeps of the trace itself.

    ``server`` is ``http(s)://[user:password@]host:port[/prefix]``. The experiment is the one named by
    ``experiment``, or with the id ``experiment_id``, or else the trace's own; it is made when missing. Put
    it behind a ``BackgroundSink``, which keeps a batch while the server is out of reach. What was
    acknowledged is not sent again, and may safely be: MLflow keeps one trace an id.

    Raises:
        SettingsError: the server or a header cannot be used.
    """

    batch_size = _AT_ONCE
    """How many traces it is best handed at once: the server takes some 10 ms for each."""

    def __init__(
        self,
        server: str | Endpoint,
        *,
        experiment: str | None = None,
        experiment_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        ssl_context: SSLContext | None = None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server_endpoint(server) if isinstance(server, str) else server
        self._experiment = experiment
        self._experiment_id = experiment_id
        self._options: dict[str, Any] = {
            "headers": checked_headers(headers or {}),
            "timeout": timeout,
            "ssl_context": ssl_context,
            "environ": environ,
            "clock": clock,
        }
        self._closed = False
        self._start_afresh()

    def __repr__(self) -> str:
        return f"MLflowExporter({self._server.url!r}, experiment={self._experiment!r})"

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._api = MLflowAPI(self._server, **self._options)
        self._experiments = Experiments(self._api)
        self._infos = TraceInfos(self._api)
        self._spans: dict[str, MLflowSpans] = {}

    def write(self, traces: Sequence[Trace]) -> None:
        """Send traces, or what of them was not sent yet: spans first, for those change the rest.

        Raises:
            StoreUnavailableError: the server did not take all of them now; the same call may go on later.
            StoreError: it refused some for good. Asked again trace by trace, as a ``BackgroundSink`` does,
                this raises for those alone, and nothing is sent twice.
        """
        if self._pid != os.getpid():
            self._leave_to_parent()
        with self._lock:
            try:
                refusal = self._write(traces)
            except StoreUnavailableError:
                self._experiments.forget()
                raise
            finally:
                if self._closed:
                    self._hang_up()
            if refusal is None or len(traces) == 1:
                self._infos.forget(traces)
        if refusal is not None:
            raise StoreError(refusal)

    def missing(self, traces: Sequence[Trace]) -> list[Trace]:
        """Those of ``traces`` that the server does not have whole.

        Raises:
            StoreUnavailableError: it does not answer now.
        """
        missing = []
        with self._lock:
            for start in range(0, len(traces), presence.AT_ONCE):
                some = traces[start : start + presence.AT_ONCE]
                there = presence.found(self._api, some)
                for trace in some:
                    experiment_id = self._id_of(self._experiment or trace.info.experiment)
                    if not presence.is_whole(there.get(trace.info.trace_id), trace, experiment_id):
                        missing.append(trace)
        return missing

    def check(self, experiment: str = DEFAULT) -> str:
        """Ask the server for the experiment, ``experiment`` where none is configured; what it says of it.

        Raises:
            StoreUnavailableError: it does not answer, or the experiment is deleted.
        """
        with self._lock:
            if self._experiment_id is not None:
                return f"answers, and has experiment {self._experiments.check(self._experiment_id)}"
            name = self._experiments.named(self._experiment or experiment)
            is_there = self._experiments.found(name) is not None
        return f"answers, and {'has' if is_there else 'will make'} the experiment {name!r}"

    def close(self) -> None:
        """Hang up, or have a request that is under way do so at its end; a later ``write`` connects anew."""
        self._closed = True
        if self._lock.acquire(timeout=_LONGEST_CLOSE_S):
            try:
                self._hang_up()
            finally:
                self._lock.release()

    def _write(self, traces: Sequence[Trace]) -> str | None:
        """Send traces; why one of them was refused, or ``None``."""
        self._api.check_pause()
        refusals = []
        for start in range(0, len(traces), _AT_ONCE):
            groups: dict[str, list[Trace]] = {}
            for trace in traces[start : start + _AT_ONCE]:
                groups.setdefault(self._experiment or trace.info.experiment, []).append(trace)
            for name, group in groups.items():
                experiment_id = self._id_of(name)
                refusals.append(self._send_spans(group, experiment_id))
                refusals.append(self._infos.send(group, experiment_id))
        return next(filter(None, refusals), None)

    def _id_of(self, name: str) -> str:
        if self._experiment_id is not None:
            return self._experiments.check(self._experiment_id)
        return self._experiments.id_of(name)

    def _send_spans(self, traces: Sequence[Trace], experiment_id: str) -> str | None:
        spans = self._spans.get(experiment_id)
        if spans is None:
            spans = self._spans[experiment_id] = self._new_spans(experiment_id)
        try:
            spans.write(traces)
        except StoreUnavailableError:
            raise
        except StoreError as error:
            return str(error)
        return None

    def _new_spans(self, experiment_id: str) -> MLflowSpans:
        options = {**self._options, "headers": {**self._options["headers"], _EXPERIMENT: experiment_id}}
        prefix = self._server.target.rstrip("/")
        endpoint = replace(self._server, target=prefix + DEFAULT_PATH)
        return MLflowSpans(endpoint, encoding="protobuf", **options)

    def _hang_up(self) -> None:
        self._api.close()
        for spans in self._spans.values():
            spans.close()

    def _leave_to_parent(self) -> None:
        self._api.leave_to_parent()
        self._start_afresh()
