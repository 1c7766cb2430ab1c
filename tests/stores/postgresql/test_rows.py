"""Facts of requests as rows: what is read is what was recorded."""

from __future__ import annotations

from typing import Any

import pytest

from tests.facts import SOURCE, make_facts
from wherefrom import TraceClient
from wherefrom._buckets import bucket_of
from wherefrom.model.record import decode_facts
from wherefrom.stores.postgresql.rows import row_of_facts
from wherefrom.stores.postgresql.store import PostgreSQLStore

CHANGES: list[dict[str, Any]] = [
    {},
    {"session_id": "s", "user_id": "u", "size": None, "path": '/"\\\0é'},
    {"link": f"00-{'a' * 32}-{'b' * 16}-01", "shared": "{}"},
    {"link": "hostile"},
    {"rest": '{"trace_id":"tr-1","parent_id":"cc","metadata":{"k":"v\\u0000"},"attributes":{"n":1.0}}'},
]


def test_facts_read_back_as_they_were(store: PostgreSQLStore) -> None:
    """With what few requests have: links, parents, further metadata and attributes."""
    records = [make_facts(number, **change) for number, change in enumerate(CHANGES)]
    store.write_records(records, {SOURCE.digest: SOURCE})
    store.write_records(records[:1], {SOURCE.digest: SOURCE})
    client = TraceClient(store)
    for record in records:
        expected = decode_facts(record, {SOURCE.digest: SOURCE})
        assert client.get_trace(expected.info.trace_id) == expected
    assert len(client.search_traces(filter_string="metadata.k LIKE 'v%' AND span.attributes.n = 1")) == 1
    assert client.list_keys("span")


@pytest.mark.parametrize("took_us", [0, 1, 7, 12_345_678])
def test_facts_have_the_bucket_of_their_duration(took_us: int) -> None:
    """As other records have."""
    start = 1_700_000_000 * 10**9
    row = row_of_facts(make_facts(1, started_ns=start, ended_ns=start + took_us * 1000))
    assert row.fields[-1] == bucket_of(took_us)
