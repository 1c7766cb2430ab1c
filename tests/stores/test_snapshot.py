"""What every store answers through a snapshot."""

from __future__ import annotations

from tests.analysis.traffic import START, make_trace
from wherefrom.stores import Store


def test_neighbours_lead_through_all_traces_in_order(store: Store) -> None:
    """Those of one millisecond too; others' experiments are not on the way."""
    made = [make_trace(number, at=START + number // 3) for number in range(10)]
    store.write([*made, make_trace(11, at=START + 1, experiment="other")])
    by_id = {trace.info.trace_id: trace for trace in made}
    path = [made[9]]
    with store.snapshot() as snapshot:
        while (older := snapshot.neighbours(path[-1].info)[0]) is not None:
            assert snapshot.neighbours(by_id[older].info)[1] == path[-1].info.trace_id
            path.append(by_id[older])
        newest_first = sorted(made, key=lambda trace: (-trace.info.request_time, trace.info.trace_id))
        assert path == newest_first
        assert snapshot.neighbours(made[9].info)[1] is None
