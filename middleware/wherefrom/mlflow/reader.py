"""Reads traces from an MLflow server, page by page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from .. import keys
from .._clock import monotonic
from ..exceptions import InvalidTraceError, StoreError
from ..exporters.delivery import TRIES, Refused, retry_with_backoff
from ..exporters.endpoint import Endpoint, checked_headers
from ..exporters.http import RETRYABLE, RefusedError
from ..model import Span, Trace, TraceData, TraceInfo, checks
from .client import DEFAULT, EXPERIMENTS, MAX_PAGE, MLFLOW_DEFAULT, TRACES, MLflowAPI, server_endpoint
from .wire import id_of, mapping_in, objects, read_info, read_span, read_stored_span

if TYPE_CHECKING:
    from ssl import SSLContext

_PAGE: Final = 100
_SPANS_AT_ONCE: Final = 10  # the page size of MLflow's own client
_FILE: Final = "ajax-api/2.0/mlflow/get-trace-artifact"
_IN_A_FILE: Final = (None, "ARTIFACT_REPO")


@dataclass(frozen=True, slots=True)
class Listed:
    """A trace without its spans. ``has_file``: these are in a file, as MLflow 2 stored them."""

    info: TraceInfo
    has_file: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A page of traces; ``done`` is the share of the time range that is read, 0 to 1."""

    listed: list[Listed]
    refused: list[Refused]
    done: float


class MLflowReader:
    """Reads the traces of an MLflow server, with retries.

    The options are those of ``MLflowExporter``. All methods raise ``StoreError`` if the server refuses a
    request, and ``StoreUnavailableError`` if it stays unavailable.

    Raises:
        SettingsError: the server or a header is invalid.
    """

    def __init__(
        self,
        server: str | Endpoint,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 120.0,  # as MLflow's own client, and for a whole page
        ssl_context: SSLContext | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._api = MLflowAPI(
            server_endpoint(server) if isinstance(server, str) else server,
            headers=checked_headers(headers or {}),
            timeout=timeout,
            ssl_context=ssl_context,
            environ=environ,
            clock=monotonic,
            retryable=RETRYABLE,
        )

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def experiments(self) -> dict[str, str]:
        """Return the ids of all experiments by name; MLflow's ``Default`` is ``default`` here.

        This is the first request, and is not retried: the address may be wrong.
        """
        body: dict[str, Any] = {"max_results": 1000}
        found: dict[str, str] = {}
        while True:
            answer = self._post(f"{EXPERIMENTS}/search", body, tries=1)
            for each in objects(answer, "experiments"):
                name = str(each.get("name", ""))
                found[DEFAULT if name == MLFLOW_DEFAULT else name] = str(each.get("experiment_id", ""))
            if not (token := answer.get("next_page_token")):
                return found
            body["page_token"] = token

    def pages(self, name: str, experiment_id: str, filter_string: str | None = None) -> Iterator[Page]:
        """Yield the traces of an experiment in pages of 100, oldest first, as they are at each request."""
        # The newest first, to say how far the pages have come: the server does not count its traces.
        last, _ = _listed(self._page(experiment_id, filter_string, "DESC", 1)[0], name)
        oldest, token = None, None
        while True:
            answers, token = self._page(experiment_id, filter_string, "ASC", _PAGE, token)
            listed, refused = _listed(answers, name)
            oldest = oldest or listed[:1]
            yield Page(listed, refused, _reached(oldest, listed[-1:], last) if token else 1.0)
            if not token:
                return

    def read(self, listed: Sequence[Listed]) -> tuple[list[Trace], list[Refused]]:
        """Return traces with their spans, and those that cannot be read; a bad one does not affect others."""
        traces, refused = [], []
        for start in range(0, len(listed), _SPANS_AT_ONCE):
            some = listed[start : start + _SPANS_AT_ONCE]
            stored = self._from_database([each.info.trace_id for each in some if not each.has_file])
            for each in some:
                trace_id = each.info.trace_id
                try:
                    spans = (
                        self._from_file(trace_id)
                        if each.has_file
                        else _spans(stored.get(trace_id, []), trace_id)
                    )
                    traces.append(Trace(each.info, TraceData(sorted(spans, key=attrgetter("start_time_ns")))))
                except (RefusedError, InvalidTraceError) as error:
                    refused.append(Refused(trace_id, str(error)))
        return traces, refused

    def _page(
        self, experiment_id: str, filter_string: str | None, order: str, size: int, token: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
        body = {
            "locations": [place],
            "filter": filter_string,
            "max_results": size,
            "order_by": [f"timestamp_ms {order}"],
            "page_token": token,
        }
        answer = self._post(f"{TRACES}/search", body)
        return objects(answer, "traces"), answer.get("next_page_token")

    def _from_database(self, ids: Sequence[str]) -> dict[str, Any]:
        """The spans of traces as the server has them; requested one by one if it fails for one of them."""
        if not ids:
            return {}
        try:
            answer = self._get(f"{TRACES}/batchGet", {"trace_ids": ids})
        except RefusedError as refusal:  # one trace may make the server fail: find it
            if len(ids) == 1:
                return {ids[0]: refusal}
            return {key: value for each in ids for key, value in self._from_database([each]).items()}
        return {id_of(each.get("trace_info")): each.get("spans") for each in objects(answer, "traces")}

    def _from_file(self, trace_id: str) -> list[Span]:
        """The spans in a file of MLflow 2; none if there is no file."""
        answer = retry_with_backoff(lambda: self._api.find(_FILE, {"request_id": trace_id}, most=MAX_PAGE))
        return [read_stored_span(span, trace_id) for span in objects(answer, "spans")]

    def _get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        return retry_with_backoff(lambda: self._api.get(path, query, most=MAX_PAGE))

    def _post(self, path: str, body: Any, tries: int = TRIES) -> dict[str, Any]:
        try:
            return retry_with_backoff(lambda: self._api.post(path, body, most=MAX_PAGE), tries=tries)
        except RefusedError as refusal:
            raise StoreError(str(refusal)) from refusal


def _listed(answers: Sequence[Mapping[str, Any]], experiment: str) -> tuple[list[Listed], list[Refused]]:
    listed, refused = [], []
    for answer in answers:
        try:
            info = read_info(answer, experiment)
        except InvalidTraceError as error:
            refused.append(Refused(id_of(answer), str(error)))
            continue
        place = mapping_in(answer, "tags").get(keys.SPANS_LOCATION_TAG)
        listed.append(Listed(info, place in _IN_A_FILE))
    return listed, refused


def _spans(answer: Any, trace_id: str) -> list[Span]:
    if isinstance(answer, RefusedError):
        raise answer
    return [read_span(span, trace_id) for span in checks.listed("spans", answer)]


def _reached(first: list[Listed], here: list[Listed], last: list[Listed]) -> float:
    """Where between the oldest and the newest trace, each alone in its list, a trace is: 0 to 1."""
    if not (first and here and last):
        return 0.0
    begin, reached, end = (each[0].info.request_time for each in (first, here, last))
    return min(max((reached - begin) / (end - begin), 0.0), 1.0) if end > begin else 0.0
