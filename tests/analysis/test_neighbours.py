from __future__ import annotations

from wherefrom.analysis.listing import find_neighbours
from wherefrom.stores import Store

from .traffic import START, make_trace


def test_neighbours_lead_through_all_traces_in_order(store: Store) -> None:
    """Those of one millisecond too; others' experiments are not on the way."""
    made = [make_trace(number, at=START + number // 3) for number in range(10)]
    store.write([*made, make_trace(11, at=START + 1, experiment="other")])
    by_id = {trace.info.trace_id: trace for trace in made}
    path = [made[9]]
    while (older := find_neighbours(path[-1].info, store=store).older) is not None:
        assert find_neighbours(by_id[older].info, store=store).newer == path[-1].info.trace_id
        path.append(by_id[older])
    newest_first = sorted(made, key=lambda trace: (-trace.info.request_time, trace.info.trace_id))
    assert path == newest_first
    assert find_neighbours(made[9].info, store=store).newer is None
