"""The exporter to an MLflow server: a sink that sends whole traces."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from .._clock import monotonic
from ..exceptions import SettingsError, StoreError, StoreUnavailableError
from ..exporters.endpoint import DEFAULT_PATH, Endpoint, checked_headers
from ..exporters.http import NotNowError, RefusedError
from ..exporters.otlp import OTLPExporter
from ..model import Assessment, Trace
from ..model.assessment import now_ms
from ..process import process
from .client import (
    DEFAULT,
    NOT_FOUND,
    TRACES,
    TRACKING_URI,
    WORTH_WAITING,
    Experiments,
    MLflowAPI,
    access_options,
    server_endpoint,
)
from .trace_infos import TraceInfos, find_traces, is_overridden, is_whole

if TYPE_CHECKING:
    from ssl import SSLContext

_AT_ONCE: Final = 128  # more than a second of the server's time
_MAX_FAILURES: Final = 2  # the server is taken to be down, and the rest of a batch waits
_STUCK: Final = 3  # failures in a row, after which cached experiment ids may be wrong
_LONGEST_CLOSE_S: Final = 0.2  # a request in progress must not delay the end of the process
_WAIT_FOR_TRACE_MS: Final = 60_000  # a trace that was not sampled never comes
_LOOKUP_SIZE: Final = 10  # as MLflow's own client
_EXPERIMENT: Final = "x-mlflow-experiment-id"

_MAX_BODY: Final = 1_000_000
_TAKES: Final = "mlflow, mlflow+http://host:5000 or mlflow+https://host:5000, and ?experiment=name"


class MLflowSpans(OTLPExporter):
    """Sends spans by OTLP, and leaves the trace and its process to ``TraceInfos``.

    MLflow makes tags of resource attributes, and leaves what is added to a root span there. The server
    commits a request in one transaction, some 10 ms a trace, so requests are kept short.
    """

    _max_body = _MAX_BODY
    _retryable = WORTH_WAITING
    _sent_once = False  # the info of the trace may have to be sent again

    def _resource_attributes(self, *_: Any) -> dict[str, Any]:
        return {}

    def _root_attributes(self, *_: Any) -> list[bytes]:
        return []


class MLflowExporter:
    """Sends traces to an MLflow server: the spans by OTLP, then the info of the trace.

    ``server`` is ``http(s)://[user:password@]host:port[/prefix]``. The experiment is the one named
    ``experiment``, or with the id ``experiment_id``, or else the trace's own; it is created if missing. Put
    it behind a ``BackgroundSink``, which keeps a batch while the server is unavailable. What the server
    acknowledged is not sent again. Sending is idempotent: MLflow stores one trace for each id.

    Raises:
        SettingsError: the server or a header is invalid.
    """

    batch_size = _AT_ONCE
    """Traces to write at once; the server takes some 10 ms for each."""

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
        clock: Callable[[], float] = monotonic,
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
        process.on_fork(in_child=self._abandon_to_parent)

    def __repr__(self) -> str:
        return f"MLflowExporter({self._server.url!r}, experiment={self._experiment!r})"

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._api = MLflowAPI(self._server, **self._options)
        self._experiments = Experiments(self._api)
        self._infos = TraceInfos(self._api)
        self._spans: dict[str, MLflowSpans] = {}
        self._stuck = 0

    def write(self, traces: Sequence[Trace]) -> None:
        """Send what was not sent yet of traces: spans first, because the server derives info from them.

        Nothing is sent twice, however often a trace is written.

        Raises:
            StoreUnavailableError: the server does not accept all of them now; write those that are ``left``
                later, or all.
            StoreError: it refused some for good. Written again one by one, as a ``BackgroundSink`` does, this
                is raised for those alone.
        """
        with self._lock:
            try:
                self._api.check_pause()
                error = self._write(traces)
            finally:
                if self._closed:
                    self._close()
            refusals = [self._refusal_of(trace) for trace in traces]
            refusal = next(filter(None, refusals), None)
            if error is not None:
                raise self._left(error, traces, refusals)
            if refusal is None or len(traces) == 1:
                self._infos.forget(traces)
            if refusal is not None:
                raise StoreError(refusal)

    def write_assessments(self, assessments: Sequence[Assessment]) -> None:
        """Send feedback, each once: what the server has already stays as it is.

        Raises:
            StoreUnavailableError: the server does not accept all of it now, or lacks the trace of some that
                is newer than a minute: it may still be on its way.
            StoreError: it refused some for good.
        """
        left: list[Assessment] = []
        unavailable: StoreUnavailableError | None = None
        refusal: RefusedError | None = None
        with self._lock:
            for at, one in enumerate(assessments):
                try:
                    self._api.check_pause()
                    self._send_assessment(one)
                except NotNowError as error:
                    if error.status == NOT_FOUND and now_ms() - one.create_time_ms > _WAIT_FOR_TRACE_MS:
                        refusal = RefusedError(str(error), NOT_FOUND)
                        continue
                    left.append(one)
                    unavailable = error
                    if error.status != NOT_FOUND:
                        left += assessments[at + 1 :]
                        break
                except RefusedError as error:
                    refusal = error
        if unavailable is not None:
            unavailable.left = left
            raise unavailable
        if refusal is not None:
            raise StoreError(str(refusal))

    def _send_assessment(self, one: Assessment) -> None:
        place = f"{TRACES}/{quote(one.trace_id, safe='')}/assessments"
        try:
            self._api.post(place, {"assessment": one.to_dict()})
        except RefusedError:
            # Refused by its id, where an earlier response was lost.
            self._api.get(f"{place}/{quote(one.assessment_id, safe='')}", {})

    def missing(self, traces: Sequence[Trace]) -> list[Trace]:
        """Return those of ``traces`` that the server does not have whole.

        Raises:
            StoreUnavailableError: the server does not respond now.
        """
        missing = []
        with self._lock:
            for start in range(0, len(traces), _LOOKUP_SIZE):
                some = traces[start : start + _LOOKUP_SIZE]
                there = find_traces(self._api, some)
                for trace in some:
                    experiment_id = self._id_of(self._experiment or trace.info.experiment)
                    if not is_whole(there.get(trace.info.trace_id), trace, experiment_id):
                        missing.append(trace)
        return missing

    def check(self, experiment: str = DEFAULT) -> str:
        """Look up the configured experiment, or else ``experiment``; return the result as a sentence part.

        Raises:
            StoreUnavailableError: the server does not respond, or the experiment is deleted.
        """
        with self._lock:
            if self._experiment_id is not None:
                return f"answers, and has experiment {self._experiments.check(self._experiment_id)}"
            name = self._experiments.named(self._experiment or experiment)
            is_there = self._experiments.found(name) is not None
        return f"answers, and {'has' if is_there else 'will make'} the experiment {name!r}"

    def close(self) -> None:
        """Close the connections, at the end of a request in progress; a later ``write`` opens new ones."""
        self._closed = True
        if self._lock.acquire(timeout=_LONGEST_CLOSE_S):
            try:
                self._close()
            finally:
                self._lock.release()

    def _write(self, traces: Sequence[Trace]) -> StoreUnavailableError | None:
        """Send traces; return why some were not accepted now, or ``None``."""
        error: StoreUnavailableError | None = None
        failures = 0
        for name, group in self._groups(traces):
            try:
                failure = self._send(group, self._id_of(name))
            except StoreUnavailableError as unavailable:
                failure = unavailable
            error, failures = failure or error, failures + 1 if failure else 0
            if failures == _MAX_FAILURES or self._api.is_paused:
                break
        return error

    def _groups(self, traces: Sequence[Trace]) -> Iterator[tuple[str, list[Trace]]]:
        """Batches of traces of one experiment."""
        for start in range(0, len(traces), _AT_ONCE):
            groups: dict[str, list[Trace]] = {}
            for trace in traces[start : start + _AT_ONCE]:
                groups.setdefault(self._experiment or trace.info.experiment, []).append(trace)
            yield from groups.items()

    def _send(self, traces: Sequence[Trace], experiment_id: str) -> StoreUnavailableError | None:
        """Send spans, then the infos of the traces whose spans the server has."""
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
            pass  # ``refusal_of`` has the reason for each trace
        error = self._infos.send(traces, experiment_id) or error
        for trace in traces:
            for one in trace.info.assessments:
                if is_overridden(one) and self._infos.is_delivered(trace):
                    try:
                        self._send_assessment(one)
                    except NotNowError as unavailable:
                        error = error or unavailable
                    except RefusedError as refused:
                        process.say_once(str(refused))
        return error

    def _refusal_of(self, trace: Trace) -> str | None:
        of_spans = (spans.refusal_of(trace) for spans in self._spans.values())
        return self._infos.refusal_of(trace) or next(filter(None, of_spans), None)

    def _left(
        self, error: StoreUnavailableError, traces: Sequence[Trace], refusals: Sequence[str | None]
    ) -> StoreUnavailableError:
        """The error with the traces to write again; among them refused ones, for which ``write`` raises."""
        left: list[Trace] = []
        taken: list[Trace] = []
        for trace, refusal in zip(traces, refusals, strict=True):
            is_taken = refusal is None and self._infos.is_delivered(trace)
            (taken if is_taken else left).append(trace)
        self._infos.forget(taken)
        self._stuck = 0 if taken else self._stuck + 1
        # The experiment may have been deleted, or another server have taken over.
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
        return MLflowSpans(endpoint, **options)

    def _close(self) -> None:
        self._api.close()
        for spans in self._spans.values():
            spans.close()

    def _abandon_to_parent(self) -> None:
        process.never_close(self._spans)
        self._api.abandon_to_parent()
        self._start_afresh()


def open_mlflow(target: str, environ: Mapping[str, str] = os.environ) -> MLflowExporter:
    """Open the exporter of ``mlflow`` (configured by the environment) or of ``mlflow+http(s)://…?experiment=…``.

    The experiment is the one in the target, then ``MLFLOW_EXPERIMENT_NAME``, then ``MLFLOW_EXPERIMENT_ID``,
    then each trace's own.

    Raises:
        SettingsError: ``target`` or a variable is invalid.
    """
    scheme, _, url = target.partition("+")
    if target in {"mlflow", "mlflow:"}:
        url = environ.get(TRACKING_URI, "").strip()
        if not url.startswith(("http://", "https://")):
            shown = "".join(url.partition(":")[:2])  # the rest may contain a password
            found = f"is {shown!r}" if url else "is not set"
            raise SettingsError(
                f"WHEREFROM_EXPORT=mlflow takes an http server in {TRACKING_URI}, which {found}"
            )
    elif scheme != "mlflow" or not url.startswith(("http://", "https://")):
        shown = target.partition(":")[0]
        raise SettingsError(f"WHEREFROM_EXPORT='{shown}:…' cannot be used: it takes {_TAKES}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError(f"WHEREFROM_EXPORT='mlflow:…' cannot be used: it takes {_TAKES}") from None
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if unknown := [key for key, value in pairs if key != "experiment" or not value]:
        raise SettingsError(f"WHEREFROM_EXPORT=…?{unknown[0]} cannot be used: it takes {_TAKES}")
    url = urlunsplit(parts._replace(query=""))
    name = dict(pairs).get("experiment") or environ.get("MLFLOW_EXPERIMENT_NAME") or None
    experiment_id = None if name else environ.get("MLFLOW_EXPERIMENT_ID") or None
    return MLflowExporter(url, experiment=name, experiment_id=experiment_id, **access_options(url, environ))
