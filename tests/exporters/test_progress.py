"""Delivery to a collector that sometimes fails: acknowledged spans are done, the rest is sent again."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from wherefrom.exceptions import StoreUnavailableError
from wherefrom.process import ledger
from wherefrom.sinks import BackgroundSink

from .conftest import MakeExporter, MakeTrace
from .receiver import Receiver, Reply
from .test_otlp import ids, spans_of


@pytest.mark.parametrize("reply", [Reply(503), Reply(cut="all")], ids=["busy", "broken"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.25])
def test_all_arrives_once_and_soon(
    make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace, share: float, reply: Reply
) -> None:
    random = Random(11)
    receiver.judge = lambda message, size: reply if random.random() < share else Reply()
    traces = [make_trace() for _ in range(2000)]
    queue = BackgroundSink(make_exporter(), flush_interval_ms=1, batch_size=16)
    queue.write(traces)
    assert queue.flush(60)
    queue.close(0.1)
    assert ids(receiver.accepted) == ids(spans_of(traces))
    failed = len([request for request in receiver.requests if request.reply is reply])
    assert len(receiver.requests) <= 125 + failed
    assert ledger.read().stored == 2000
    assert not ledger.read().dropped


def test_a_request_that_fails_holds_up_no_other(
    make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
) -> None:
    """The traces of the others are done; those of its own are left."""
    traces = [make_trace("bad" if number == 8 else "good") for number in range(20)]
    for trace in traces:
        trace.data.spans[0].outputs = "x" * 500_000
    receiver.judge = lambda message, size: Reply(503 if "bad" in names(message) else 200)
    exporter = make_exporter()
    with pytest.raises(StoreUnavailableError) as caught:
        exporter.write(traces)
    assert caught.value.left == traces[7:14]
    assert ids(receiver.accepted) == ids(spans_of(traces[:7] + traces[14:]))
    receiver.judge = lambda message, size: Reply()
    exporter.write(traces)  # by one that did not look at what is left
    assert ids(receiver.accepted) == ids(spans_of(traces))


def test_requests_are_few_while_all_fail(
    make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
) -> None:
    traces = [make_trace() for _ in range(40)]
    for trace in traces:
        trace.data.spans[0].outputs = "x" * 500_000
    receiver.judge = lambda message, size: Reply(503)
    with pytest.raises(StoreUnavailableError) as caught:
        make_exporter().write(traces)
    assert caught.value.left is None
    assert len(receiver.requests) == 2


def test_a_span_that_makes_the_collector_fail_costs_its_trace_alone(
    make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace
) -> None:
    """500 is waited for a few times, then the span to blame is looked for."""
    traces = [make_trace("bad" if number == 60 else "good") for number in range(100)]
    receiver.judge = lambda message, size: Reply(500 if "bad" in names(message) else 200)
    queue = BackgroundSink(make_exporter(), flush_interval_ms=1)
    queue.write(traces)
    assert queue.flush(60)
    queue.close(0.1)
    assert ids(receiver.accepted) == ids(spans_of(traces[:60] + traces[61:]))
    assert ledger.read().stored == 99
    assert ledger.read().dropped == {"refused_by_sink": 1}
    assert len(receiver.requests) < 30


def names(message: Any) -> Counter[str]:
    return Counter(
        span.name
        for resource_spans in message.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    )
