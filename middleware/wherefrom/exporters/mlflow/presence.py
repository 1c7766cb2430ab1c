"""Whether an MLflow server has a trace already, whole: a long export that broke off goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...model import Trace
from ..http import RefusedError
from .api import MAX_PAGE, MLflowAPI
from .infos import PATH as TRACES
from .start_trace import FINALIZED, cut_tags
from .wire import id_of, objects, span_id_of

AT_ONCE: Final = 10  # as MLflow's own client asks


def found(api: MLflowAPI, traces: Sequence[Trace]) -> dict[str, dict[str, Any]]:
    """What the server has of some traces, by their ids.

    Raises:
        StoreUnavailableError: it does not answer now.
    """
    try:
        ids = [trace.info.trace_id for trace in traces]
        answer = api.get(f"{TRACES}/batchGet", {"trace_ids": ids}, most=MAX_PAGE)
    except RefusedError:
        if len(traces) == 1:
            return {}
        return {key: value for trace in traces for key, value in found(api, [trace]).items()}
    return {id_of(each.get("trace_info")): each for each in objects(answer, "traces")}


def is_whole(answer: Mapping[str, Any] | None, trace: Trace, experiment_id: str) -> bool:
    """Whether nothing of a trace is missing there: its place, its tags, and every span that has ended."""
    if answer is None:
        return False
    info = answer["trace_info"]
    place = (info.get("trace_location") or {}).get("mlflow_experiment") or {}
    tags = info.get("tags") or {}
    spans = {span_id_of(span) for span in objects(answer, "spans")}
    ended = {span.span_id for span in trace.data.spans if span.end_time_ns is not None}
    return (
        FINALIZED in (info.get("trace_metadata") or {})
        and place.get("experiment_id") == experiment_id
        and cut_tags(trace.info.tags).items() <= tags.items()
        and ended <= spans
    )
