"""pytest: the fixture ``wherefrom_traces``, a list of the traces that a test records.

    def test_the_user_is_recorded(wherefrom_traces):
        client.get("/", headers={"X-User-ID": "ada"})
        (trace,) = wherefrom_traces
        assert trace.info.trace_metadata["mlflow.trace.user"] == "ada"

pytest loads this module by itself where Wherefrom is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..model import Trace

__all__ = ["wherefrom_traces"]


@pytest.fixture
def wherefrom_traces() -> Iterator[list[Trace]]:
    """The traces that are recorded during the test, in the order in which they end.

    It holds for every middleware and decorator of this process, also for apps that were made before. The
    configured store and exporters get nothing; a ``MemorySink`` of the test itself gets its traces too. A
    trace is in the list before the response is complete. Sampling applies as configured.
    """
    from ..process import process
    from ..sinks import FanOut, MemorySink, Sink
    from ..tracing.recorder import Recorder

    found = MemorySink()

    def get_sink(recorder: Any) -> Sink:
        own = vars(recorder)["sink"]
        return FanOut(found, own) if isinstance(own, MemorySink) else found

    def set_sink(recorder: Any, sink: Sink) -> None:
        vars(recorder)["sink"] = sink

    def set_queues(recorder: Any, queues: object) -> None:
        vars(recorder)["_queues"] = queues

    with pytest.MonkeyPatch.context() as patch:
        if process.default_recorder is not None and process.default_recorder.is_idle:
            patch.setattr(process, "default_recorder", None)  # one that is not idle may take its place
        # On the class, so that recorders are included that are made later in the test.
        patch.setattr(Recorder, "sink", property(get_sink, set_sink), raising=False)
        patch.setattr(Recorder, "_queues", property(lambda _: None, set_queues), raising=False)
        yield found.traces
