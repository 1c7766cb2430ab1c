"""Telling an MLflow server of traces, each until it is acknowledged or refused for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from ...exceptions import StoreUnavailableError
from ...model import Trace
from ..facts import root_of
from ..http import RefusedError
from .api import MLflowAPI
from .start_trace import FINALIZED, start_trace
from .wire import id_of, objects

PATH: Final = "api/3.0/mlflow/traces"

_MAX_SERVER_ERRORS: Final = 5
_MOST_SETTLED: Final = 20_000

_Key = tuple[str, str, int]


class TraceInfos:
    """Sends what MLflow keeps of traces beside their spans.

    What is settled, taken or refused for good, is remembered until ``forget``: a batch of which a part got
    through comes again whole. MLflow keeps one info a trace, so where several services share a trace it is
    that of the one that began it; those that joined tell theirs only while nobody has told any.
    """

    def __init__(self, api: MLflowAPI) -> None:
        self._api = api
        self._refusals: dict[_Key, str | None] = {}  # ``None``: it was taken
        self._server_errors: Counter[_Key] = Counter()
        self._joined: dict[str, None] = {}

    def send(self, traces: Sequence[Trace], experiment_id: str) -> StoreUnavailableError | None:
        """Tell of traces; the error when some were not taken now, which are not settled then."""
        joined = [trace for trace in traces if self._is_joined(trace)]
        error = self._leave_to_others(joined)
        waiting = {id(trace) for trace in joined} if error is not None else set()
        pending = [
            trace for trace in traces if _key(trace) not in self._refusals and id(trace) not in waiting
        ]
        refused, failure = self._post(pending, experiment_id, narrow=False)
        error = error or failure
        refused, failure = self._post([trace for trace, _ in refused], experiment_id, narrow=True)
        failing = [self._refuse(trace, refusal) for trace, refusal in refused]
        return error or failure or next(filter(None, failing), None)

    def is_settled(self, trace: Trace) -> bool:
        """Whether a trace was taken or refused for good."""
        return _key(trace) in self._refusals

    def refusal_of(self, trace: Trace) -> str | None:
        """Why a trace was refused for good, if it was."""
        return self._refusals.get(_key(trace))

    def forget(self, traces: Sequence[Trace]) -> None:
        """Nobody hands these in again to have them sent; if somebody does, they are."""
        for trace in traces:
            self._refusals.pop(_key(trace), None)
        if len(self._refusals) > _MOST_SETTLED:  # of those who did not ask again
            self._refusals.clear()

    def _is_joined(self, trace: Trace) -> bool:
        """Whether a trace, or what a fragment belongs to, was begun by another service."""
        root = trace.root if type(trace) is not Trace else root_of(trace)
        if root is None:
            return trace.info.trace_id in self._joined
        if root.parent_id is None:
            return False
        self._joined[trace.info.trace_id] = None
        if len(self._joined) > _MOST_SETTLED:
            del self._joined[next(iter(self._joined))]
        return True

    def _leave_to_others(self, joined: Sequence[Trace]) -> StoreUnavailableError | None:
        """Settle the traces that the server has been told of; why it does not say now, if so."""
        if not joined:
            return None
        ids = [trace.info.trace_id for trace in joined]
        try:
            answer = self._api.post(f"{PATH}/batchGetInfos", {"trace_ids": ids})
        except RefusedError:  # one that does not know this: then all tell
            return None
        except StoreUnavailableError as error:
            return error
        infos = objects(answer, "trace_infos")
        told = {id_of(info) for info in infos if FINALIZED in (info.get("trace_metadata") or {})}
        for trace in joined:
            if trace.info.trace_id in told:
                self._settle(trace, None)
        return None

    def _post(
        self, traces: Sequence[Trace], experiment_id: str, *, narrow: bool
    ) -> tuple[list[tuple[Trace, RefusedError]], StoreUnavailableError | None]:
        """Send each; those that were refused, and why some were not taken now."""
        sendable, bodies = self._encoded(traces, experiment_id, narrow=narrow)
        refused: list[tuple[Trace, RefusedError]] = []
        unavailable: StoreUnavailableError | None = None
        for place, outcome in self._api.post_all(PATH, bodies):
            if outcome is None:
                self._settle(sendable[place], None)
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
                self._settle(trace, f"a trace cannot be sent: {type(error).__name__}: {error}")
            else:
                sendable.append(trace)
        return sendable, bodies

    def _refuse(self, trace: Trace, refusal: RefusedError) -> StoreUnavailableError | None:
        """Settle a trace that was refused, unless a server that failed over it is to be asked again."""
        key = _key(trace)
        if refusal.status >= 500:
            self._server_errors[key] += 1
            if self._server_errors[key] < _MAX_SERVER_ERRORS:
                return StoreUnavailableError(str(refusal))
        self._settle(trace, str(refusal))
        return None

    def _settle(self, trace: Trace, refusal: str | None) -> None:
        key = _key(trace)
        self._refusals[key] = refusal
        self._server_errors.pop(key, None)


def _key(trace: Trace) -> _Key:
    """What tells a trace from the fragments of it that come later, each with a span that ended late."""
    spans = trace.data.spans
    return trace.info.trace_id, spans[0].span_id if spans else "", len(spans)
