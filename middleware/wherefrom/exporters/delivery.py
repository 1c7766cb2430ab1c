"""Delivers traces for callers that can wait, such as a command; a request never waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import uniform
from typing import Final, TypeVar

from ..exceptions import StoreUnavailableError
from ..model import Trace
from ..sinks import Sink

TRIES: Final = 6  # about ten seconds in all
_FIRST_PAUSE_S: Final = 0.5
_LEAST_JITTER: Final = 0.5  # clients that failed together do not retry together
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Refused:
    """A trace that cannot be transferred, and why."""

    trace_id: str
    reason: str


def deliver(sink: Sink, traces: Sequence[Trace]) -> list[Refused]:
    """Write traces with retries; return those that the sink refuses for good.

    Raises:
        StoreUnavailableError: the sink stays unavailable.
    """
    while traces:
        try:
            retry_with_backoff(partial(sink.write, traces))
        except StoreUnavailableError as error:
            if error.left is None:
                raise
            traces = error.left
            time.sleep(_FIRST_PAUSE_S)
        except Exception as error:  # noqa: BLE001 - one bad trace must not cost the others
            if len(traces) == 1:
                return [Refused(traces[0].info.trace_id, str(error))]
            # Refused together: one by one, the error names the trace that caused it.
            return [refused for trace in traces for refused in deliver(sink, [trace])]
        else:
            break
    return []


def retry_with_backoff(
    call: Callable[[], _Result], *, tries: int = TRIES, sleep: Callable[[float], object] = time.sleep
) -> _Result:
    """Return what ``call`` returns; retry while it raises ``StoreUnavailableError``, for some ten seconds.

    Raises:
        StoreUnavailableError: from the last try, or from one that made progress and has ``left``.
    """
    for failures in range(tries - 1):
        try:
            return call()
        except StoreUnavailableError as error:
            if error.left is not None:  # the same call would send accepted traces again
                raise
            sleep(_FIRST_PAUSE_S * 2**failures * uniform(_LEAST_JITTER, 1))  # noqa: S311 - no secret
    return call()
