"""The exporter to an MLflow server: a sink that sends traces whole."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ...exceptions import StoreError, StoreUnavailableError
from ...model import Trace
from ..endpoint import DEFAULT_PATH, Endpoint, checked_headers
from . import presence
from .api import NOT_FOUND, MLflowAPI, server_endpoint
from .experiments import DEFAULT, Experiments
from .infos import TraceInfos
from .spans import MLflowSpans

if TYPE_CHECKING:
    from ssl import SSLContext

_AT_ONCE: Final = 128
_MAX_FAILURES: Final = 2
_STUCK: Final = 3
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
        self._stuck = 0

    def write(self, traces: Sequence[Trace]) -> None:
        """Send traces, or what of them was not sent yet: spans first, for those change the rest.

        Raises:
            StoreUnavailableError: the server did not take all of them now; those that are ``left`` may be
                written later, or all: nothing is sent twice.
            StoreError: it refused some for good. Asked again trace by trace, as a ``BackgroundSink`` does,
                this raises for those alone, and nothing is sent twice.
        """
        if self._pid != os.getpid():
            self._leave_to_parent()
        with self._lock:
            try:
                self._api.check_pause()
                error = self._write(traces)
            finally:
                if self._closed:
                    self._hang_up()
            refusals = [self._refusal_of(trace) for trace in traces]
            refusal = next(filter(None, refusals), None)
            if error is not None:
                raise self._left(error, traces, refusals)
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

    def _write(self, traces: Sequence[Trace]) -> StoreUnavailableError | None:
        """Send traces; why some of them were not taken now, or ``None``."""
        error: StoreUnavailableError | None = None
        failures = 0
        for name, group in self._groups(traces):
            try:
                failure = self._send(group, self._id_of(name))
            except StoreUnavailableError as unavailable:
                failure = unavailable
            error, failures = failure or error, failures + 1 if failure else 0
            if failures == _MAX_FAILURES or self._api.asks_to_wait:
                break
        return error

    def _groups(self, traces: Sequence[Trace]) -> Iterator[tuple[str, list[Trace]]]:
        """Traces by their experiment, as many as are sent at once."""
        for start in range(0, len(traces), _AT_ONCE):
            groups: dict[str, list[Trace]] = {}
            for trace in traces[start : start + _AT_ONCE]:
                groups.setdefault(self._experiment or trace.info.experiment, []).append(trace)
            yield from groups.items()

    def _send(self, traces: Sequence[Trace], experiment_id: str) -> StoreUnavailableError | None:
        """Send spans, then the rest of those traces whose spans are there."""
        if (spans := self._spans.get(experiment_id)) is None:
            spans = self._spans[experiment_id] = self._new_spans(experiment_id)
        error: StoreUnavailableError | None = None
        try:
            spans.write(traces)
        except StoreUnavailableError as unavailable:
            error = unavailable
            left = {id(trace) for trace in (traces if error.left is None else error.left)}
            traces = [trace for trace in traces if id(trace) not in left]
        except StoreError:
            pass  # of some, which ``refusal_of`` knows
        return self._infos.send(traces, experiment_id) or error

    def _refusal_of(self, trace: Trace) -> str | None:
        of_spans = (spans.refusal_of(trace) for spans in self._spans.values())
        return self._infos.refusal_of(trace) or next(filter(None, of_spans), None)

    def _left(
        self, error: StoreUnavailableError, traces: Sequence[Trace], refusals: Sequence[str | None]
    ) -> StoreUnavailableError:
        """The error with the traces that are to come again: also those refused, of which it must be said."""
        left: list[Trace] = []
        taken: list[Trace] = []
        for trace, refusal in zip(traces, refusals, strict=True):
            is_taken = refusal is None and self._infos.is_settled(trace)
            (taken if is_taken else left).append(trace)
        self._infos.forget(taken)
        self._stuck = 0 if taken else self._stuck + 1
        # One may have been deleted, or another server have taken over.
        if self._stuck >= _STUCK or getattr(error, "status", None) == NOT_FOUND:
            self._experiments.forget()
        error.left = left if taken else None
        return error

    def _id_of(self, name: str) -> str:
        if self._experiment_id is not None:
            return self._experiments.check(self._experiment_id)
        return self._experiments.id_of(name)

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
