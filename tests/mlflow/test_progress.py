"""Delivery to a server that sometimes fails: acknowledged traces are done, the rest is sent again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from wherefrom.exceptions import StoreUnavailableError
from wherefrom.exporters.delivery import deliver
from wherefrom.mlflow.exporter import MLflowExporter
from wherefrom.process import ledger

from ..exporters.receiver import Reply
from .conftest import MakeMLflowQueue, MakeTrace
from .stub import EXPERIMENTS, SPANS, TRACES, Asked, StubServer, failure
from .test_exporter import everything_once, name_of

BUSY = Reply(503, b"busy", {"content-type": "text/plain"})
BROKEN = Reply(cut="all")


def failing(share: float, reply: Reply, failed: list[Asked]) -> Callable[[Asked], Reply | None]:
    """Answers a share of all requests with ``reply``, the same ones in each run."""
    random = Random(7)

    def judge(asked: Asked) -> Reply | None:
        if random.random() < share:
            failed.append(asked)
            return reply
        return None

    return judge


class TestAFewErrors:
    @pytest.mark.parametrize("reply", [BUSY, BROKEN], ids=["busy", "broken"])
    @pytest.mark.parametrize("share", [0.02, 0.1, 0.25])
    def test_all_arrives_once_and_soon(
        self,
        stub: StubServer,
        make_mlflow_queue: MakeMLflowQueue,
        make_trace: MakeTrace,
        share: float,
        reply: Reply,
    ) -> None:
        """Each failed request costs itself, sent again: no other, no span twice, no experiment looked up."""
        failed: list[Asked] = []
        stub.judge = failing(share, reply, failed)
        traces = [make_trace() for _ in range(500)]
        queue = make_mlflow_queue(experiment="chat")
        queue.write(traces)
        assert queue.flush(60)
        assert everything_once(stub, traces)
        assert len(stub.told(TRACES)) - sum(asked.path == TRACES for asked in failed) == 500
        assert len(stub.asked) < 540 + 1.2 * len(failed)
        assert len(stub.told(f"{EXPERIMENTS}/get-by-name")) < 12
        assert ledger.read().stored == 500
        assert not ledger.read().dropped

    def test_a_command_delivers_as_well(self, stub: StubServer, make_trace: MakeTrace) -> None:
        """It writes batches itself, without a queue."""
        failed: list[Asked] = []
        stub.judge = failing(0.1, BUSY, failed)
        traces = [make_trace() for _ in range(200)]
        exporter = MLflowExporter(stub.url, environ={})
        assert deliver(exporter, traces) == []
        assert everything_once(stub, traces)
        exporter.close()


class TestOneTrace:
    @pytest.mark.parametrize("path", [SPANS, TRACES])
    def test_that_is_never_taken_holds_up_no_other(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace, path: str
    ) -> None:
        """It is tried again, less and less often; when it is taken at last, it is there once."""
        is_poison = True

        def judge(asked: Asked) -> Reply | None:
            if asked.path != path or not is_poison:
                return None
            names = [span.name for span in asked.spans] or [name_of(asked)]
            return BUSY if "GET /poison" in names else None

        stub.judge = judge
        experiments = ["poison", *["chat"] * 299] if path == SPANS else ["chat"] * 300
        traces = [
            make_trace("GET /poison" if number == 0 else "GET /", experiment=experiment)
            for number, experiment in enumerate(experiments)
        ]
        queue = make_mlflow_queue()
        queue.write(traces)
        assert not queue.flush(2)
        assert ledger.read().stored == 299
        assert queue.depth == 1
        assert len(stub.told(path)) < 330
        is_poison = False
        assert queue.flush(20)
        assert everything_once(stub, traces)
        assert not ledger.read().dropped

    def test_that_is_refused_holds_up_no_other(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        """Refused in the middle of other failures: it is counted once, and asked about twice at most."""
        random = Random(3)

        def judge(asked: Asked) -> Reply | None:
            if asked.path == TRACES and name_of(asked) == "GET /bad":
                return failure(400, "INVALID_PARAMETER_VALUE", "odd")
            return BUSY if random.random() < 0.1 else None

        stub.judge = judge
        traces = [make_trace("GET /bad" if number % 100 == 7 else "GET /") for number in range(400)]
        queue = make_mlflow_queue()
        queue.write(traces)
        assert queue.flush(30)
        assert ledger.read().stored == 396
        assert ledger.read().dropped == {"refused_by_sink": 4}
        assert set(stub.spans.values()) == {1}
        asked = Counter(name_of(asked) for asked in stub.told(TRACES))
        assert asked["GET /bad"] == 8, "each as it is, and narrowed"


class TestOutage:
    def test_requests_are_few_while_all_fail(
        self, stub: StubServer, make_mlflow_queue: MakeMLflowQueue, make_trace: MakeTrace
    ) -> None:
        stub.judge = lambda asked: BUSY if asked.path == TRACES else None
        queue = make_mlflow_queue(interval_ms=60_000)
        queue.write([make_trace() for _ in range(1000)])
        assert not queue.flush(2)
        assert len(stub.told(TRACES)) < 80
        assert len(stub.told(SPANS)) == 1, "the spans of the first batch are there"

    def test_one_that_asks_to_wait_is_asked_no_more(self, stub: StubServer, make_trace: MakeTrace) -> None:
        """What it took before is done, and said."""

        def judge(asked: Asked) -> Reply | None:
            late = len(stub.told(TRACES)) > 20
            return Reply(429, b"", {"retry-after": "60"}) if late and asked.path == TRACES else None

        stub.judge = judge
        exporter = MLflowExporter(stub.url, environ={})
        traces = [make_trace() for _ in range(100)]
        with pytest.raises(StoreUnavailableError) as caught:
            exporter.write(traces)
        exporter.close()
        assert [trace for trace in traces if trace.info.trace_id not in stub.infos] == caught.value.left
        assert len(caught.value.left) == 80
        assert len(stub.told(TRACES)) <= 24, "those that were under way"
