"""The infos of traces on an MLflow server: what it stores of a trace besides its spans.

``StartTraceV3`` is an upsert, one request for each trace: metadata and tags are merged into the stored ones,
other fields replace them. OTLP has no place for metadata.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .. import keys
from .._capture.values import clean_text, cut, dump
from ..exceptions import InvalidTraceError, StoreUnavailableError
from ..exporters.http import RefusedError
from ..model import Assessment, Trace, TraceInfo
from ..model.trace import read_assessments
from ..otel.otlp import root_of
from .client import MAX_PAGE, TRACES, MLflowAPI
from .wire import FINALIZED, REQUEST_ID, SERVER_TAGS, id_of, mapping_in, metadata_of, objects, span_id_of

_MAX_SERVER_ERRORS: Final = 5  # then the trace itself is taken to be the cause
_MOST_REMEMBERED: Final = 20_000  # the memory of traces that are never written again

# mlflow/tracing/constant.py: MAX_CHARS_IN_TRACE_INFO_METADATA, …_TAGS_KEY, …_TAGS_VALUE
_MAX_KEY: Final = 250
_MAX_VALUE: Final = 250
_MAX_TAG: Final = 4096
# mlflow/store/tracking/dbmodels/models.py: columns that PostgreSQL and MySQL hold to their length
_MAX_REQUEST_ID: Final = 50
_MAX_PREVIEW: Final = 1000

_ELLIPTIC: Final = (keys.TRACE_INPUTS, keys.TRACE_OUTPUTS)

_Key = tuple[str, str, int]


class TraceInfos:
    """Sends the infos of traces, each until the server acknowledges it or refuses it for good.

    Delivered and refused infos are remembered until ``forget``: a batch that was delivered in part is written
    again as a whole. MLflow stores one info for each trace. If several services share a trace, it is that of
    the service that started it; the others send theirs only while the server has none.
    """

    def __init__(self, api: MLflowAPI) -> None:
        self._api = api
        self._refusals: dict[_Key, str | None] = {}  # ``None``: delivered
        self._server_errors: Counter[_Key] = Counter()
        self._joined: dict[str, None] = {}

    def send(self, traces: Sequence[Trace], experiment_id: str) -> StoreUnavailableError | None:
        """Send infos; return the error if some were not accepted now."""
        joined = [trace for trace in traces if self._is_joined(trace)]
        error = self._skip_known(joined)
        waiting = {id(trace) for trace in joined} if error is not None else set()
        pending = [
            trace for trace in traces if _key(trace) not in self._refusals and id(trace) not in waiting
        ]
        refused, failure = self._post(pending, experiment_id, narrow=False)
        error = error or failure
        refused, failure = self._post([trace for trace, _ in refused], experiment_id, narrow=True)
        failing = [self._refuse(trace, refusal) for trace, refusal in refused]
        return error or failure or next(filter(None, failing), None)

    def is_delivered(self, trace: Trace) -> bool:
        """Whether the info of a trace was delivered or refused for good."""
        return _key(trace) in self._refusals

    def refusal_of(self, trace: Trace) -> str | None:
        """Return why the info of a trace was refused for good, ``None`` if it was not."""
        return self._refusals.get(_key(trace))

    def forget(self, traces: Sequence[Trace]) -> None:
        """Forget traces that are not written again; if they are, their infos are sent again."""
        for trace in traces:
            self._refusals.pop(_key(trace), None)
        if len(self._refusals) > _MOST_REMEMBERED:  # their traces were never written again
            self._refusals.clear()

    def _is_joined(self, trace: Trace) -> bool:
        """Whether another service started the trace, or the trace of a fragment."""
        root = trace.root if type(trace) is not Trace else root_of(trace)
        if root is None:
            return trace.info.trace_id in self._joined
        if root.parent_id is None:
            return False
        self._joined[trace.info.trace_id] = None
        if len(self._joined) > _MOST_REMEMBERED:
            del self._joined[next(iter(self._joined))]
        return True

    def _skip_known(self, joined: Sequence[Trace]) -> StoreUnavailableError | None:
        """Mark traces as delivered whose info the server has; return why it does not respond, if so."""
        if not joined:
            return None
        ids = [trace.info.trace_id for trace in joined]
        try:
            answer = self._api.post(f"{TRACES}/batchGetInfos", {"trace_ids": ids})
        except RefusedError:  # an MLflow without this call: then all services send theirs
            return None
        except StoreUnavailableError as error:
            return error
        infos = objects(answer, "trace_infos")
        known = {id_of(info) for info in infos if FINALIZED in metadata_of(info)}
        for trace in joined:
            if trace.info.trace_id in known:
                self._finish(trace, None)
        return None

    def _post(
        self, traces: Sequence[Trace], experiment_id: str, *, narrow: bool
    ) -> tuple[list[tuple[Trace, RefusedError]], StoreUnavailableError | None]:
        """Send each; return those that were refused, and why some were not accepted now."""
        sendable, bodies = self._encoded(traces, experiment_id, narrow=narrow)
        refused: list[tuple[Trace, RefusedError]] = []
        unavailable: StoreUnavailableError | None = None
        for place, outcome in self._api.post_all(TRACES, bodies):
            if outcome is None:
                self._finish(sendable[place], None)
            elif isinstance(outcome, RefusedError):
                refused.append((sendable[place], outcome))
            else:
                unavailable = unavailable or outcome
        return refused, unavailable

    def _encoded(
        self, traces: Sequence[Trace], experiment_id: str, *, narrow: bool
    ) -> tuple[list[Trace], list[bytes]]:
        sendable, bodies = [], []
        for trace in traces:
            try:
                bodies.append(start_trace(trace.info, experiment_id, narrow=narrow))
            except Exception as error:  # noqa: BLE001 - one bad trace must not cost the others
                self._finish(trace, f"a trace cannot be sent: {type(error).__name__}: {error}")
            else:
                sendable.append(trace)
        return sendable, bodies

    def _refuse(self, trace: Trace, refusal: RefusedError) -> StoreUnavailableError | None:
        """Mark a trace as refused, unless the server failed and may accept it next time."""
        key = _key(trace)
        if refusal.status >= 500:
            self._server_errors[key] += 1
            if self._server_errors[key] < _MAX_SERVER_ERRORS:
                return StoreUnavailableError(str(refusal))
        self._finish(trace, str(refusal))
        return None

    def _finish(self, trace: Trace, refusal: str | None) -> None:
        key = _key(trace)
        self._refusals[key] = refusal
        self._server_errors.pop(key, None)


def _key(trace: Trace) -> _Key:
    """Distinguishes a trace from its fragments, each of which has a span that ended later."""
    spans = trace.data.spans
    return trace.info.trace_id, spans[0].span_id if spans else "", len(spans)


def start_trace(info: TraceInfo, experiment_id: str, *, narrow: bool = False) -> bytes:
    """Return the body of a ``StartTraceV3`` request, truncated as MLflow's own client does.

    ``narrow``: for a database that refused that. PostgreSQL refuses what SQLite accepts: NUL characters, and
    texts longer than their column.

    Raises:
        ValueError, OverflowError: the trace started before the year 1 or after 9999.
    """
    message = info.to_dict()
    message["trace_location"]["mlflow_experiment"]["experiment_id"] = experiment_id
    if (ms := message.pop("execution_duration_ms", None)) is not None:
        message["execution_duration"] = f"{ms / 1000:.3f}s"
    message["assessments"] = [one.to_dict() for one in info.assessments if not is_overridden(one)]
    message["trace_metadata"] = cut_metadata(info.trace_metadata)
    message["tags"] = cut_tags(info.tags)
    if narrow:
        message = _narrowed(message)
    return dump({"trace": {"trace_info": message}})


def is_overridden(assessment: Assessment) -> bool:
    """Whether the assessment overrides another or is overridden, which ``StartTraceV3`` would forget."""
    return assessment.overrides is not None or not assessment.valid


def cut_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Truncate metadata as MLflow's client does."""
    pairs = dict(metadata)
    pairs.pop(FINALIZED, None)
    for key in (
        keys.PART,
        keys.PART_EDITS,
    ):  # a server merges metadata: they would stay when the origin comes
        pairs.pop(key, None)
    for key in _ELLIPTIC:
        if key in pairs:
            pairs[key] = cut(clean_text(pairs[key]), _MAX_VALUE)
    return _cut(pairs, _MAX_VALUE)


def cut_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Truncate tags as MLflow's client does, without those of a server."""
    return _cut({key: value for key, value in dict(tags).items() if key not in SERVER_TAGS}, _MAX_TAG)


def uncut(info: TraceInfo, known: TraceInfo) -> None:
    """Restore what MLflow truncated of a trace, from the info that was exported."""
    info.trace_metadata = _uncut(info.trace_metadata, known.trace_metadata, cut_metadata)
    info.tags = _uncut(info.tags, known.tags, cut_tags)


def _uncut(
    pairs: dict[str, str], known: dict[str, str], cutting: Callable[[dict[str, str]], dict[str, str]]
) -> dict[str, str]:
    restored = dict(pairs)
    for key, value in known.items():
        for shortened, rest in cutting({key: value}).items():
            if restored.get(shortened) == rest:
                del restored[shortened]
                restored[key] = value
    return restored


def _cut(pairs: Mapping[Any, Any], limit: int) -> dict[str, str]:
    return {clean_text(key)[:_MAX_KEY]: clean_text(value)[:limit] for key, value in pairs.items()}


def _narrowed(message: dict[str, Any]) -> dict[str, Any]:
    message = _without_nul(message)
    request_id = message.get("client_request_id", "")
    if len(request_id) > _MAX_REQUEST_ID:
        message["client_request_id"] = request_id[:_MAX_REQUEST_ID]
        message["trace_metadata"][REQUEST_ID] = request_id[:_MAX_VALUE]
    for key in ("request_preview", "response_preview"):
        if key in message:
            message[key] = cut(message[key], _MAX_PREVIEW)
    return message


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value


def find_traces(api: MLflowAPI, traces: Sequence[Trace]) -> dict[str, dict[str, Any]]:
    """Return what the server has of some traces, by trace id; nothing of one that makes it fail.

    Raises:
        StoreUnavailableError: the server does not respond now.
    """
    try:
        ids = [trace.info.trace_id for trace in traces]
        answer = api.get(f"{TRACES}/batchGet", {"trace_ids": ids}, most=MAX_PAGE)
    except RefusedError:
        if len(traces) == 1:
            return {}
        return {key: value for trace in traces for key, value in find_traces(api, [trace]).items()}
    return {id_of(each.get("trace_info")): each for each in objects(answer, "traces")}


def _are_there(assessments: Sequence[Assessment], found: object) -> bool:
    try:
        known = {one.assessment_id: one for one in read_assessments("-", found)}
    except InvalidTraceError:
        return False
    # Other fields follow from these, or do not change.
    return all(
        (other := known.get(one.assessment_id)) is not None
        and (other.name, other.value, other.rationale) == (one.name, one.value, one.rationale)
        for one in assessments
    )


def is_whole(answer: Mapping[str, Any] | None, trace: Trace, experiment_id: str) -> bool:
    """Whether the server has a trace with its experiment, its tags, and every span that has ended."""
    if answer is None:
        return False
    info = mapping_in(answer, "trace_info")
    experiment = mapping_in(mapping_in(info, "trace_location"), "mlflow_experiment")
    spans = {span_id_of(span) for span in objects(answer, "spans")}
    ended = {span.span_id for span in trace.data.spans if span.end_time_ns is not None}
    return (
        FINALIZED in metadata_of(info)
        and experiment.get("experiment_id") == experiment_id
        and cut_tags(trace.info.tags).items() <= mapping_in(info, "tags").items()
        and ended <= spans
        and _are_there(trace.info.assessments, info.get("assessments"))
    )
