"""Every stored pair is found, or its absence is, past the limit of known keys, whichever process wrote it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.conftest import MakeTrace
from tests.query.predicate import matches
from wherefrom.analysis import compare
from wherefrom.client import TraceClient
from wherefrom.exceptions import FilterError, StoreError
from wherefrom.query import parse_filter
from wherefrom.query.completion import offers
from wherefrom.stores.sql import known_keys
from wherefrom.stores.sqlite.store import SQLiteStore

KEYS = [f"k{number}" for number in range(9)]
VALUES = ["acme", "Acme", "beta", "10", "9.5", "", "x" * 129, "a\0b", "a%"]
CONDITIONS = (
    "= 'acme'",
    "= 'a\0b'",
    f"= '{'x' * 129}'",
    "!= 'acme'",
    "LIKE 'a%'",
    "NOT LIKE '%m%'",
    "ILIKE 'ACM_'",
    "NOT ILIKE 'a%'",
    "IN ('beta', 'acme')",
    "NOT IN ('beta', 'acme')",
    "IS NULL",
    "IS NOT NULL",
    "RLIKE '^[ab]'",
    "> 9",
    "<= 9.5",
    "= 10",
)
PLANS: tuple[dict[str, int], ...] = ({"RARE": 0}, {"RARE": 10_000})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


@pytest.fixture
def stores(path: Path) -> Iterator[list[SQLiteStore]]:
    """Two stores on one file, which share keys only through the file."""
    stores = [SQLiteStore(path), SQLiteStore(path)]
    yield stores
    for store in stores:
        store.close()


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for a few keys."""
    monkeypatch.setattr(known_keys, "MAX_KEYS", 6)
    monkeypatch.setattr(known_keys, "MAX_NEW_KEYS", 3)


def assert_found(client: TraceClient, monkeypatch: pytest.MonkeyPatch, names: list[str] = KEYS) -> None:
    """What each condition finds is what it means, by the list of values and by a scan."""
    traces = list(client.search_traces(max_results=1000))
    for family in ("metadata", "tag"):
        for key in names:
            for condition in CONDITIONS:
                text = f"{family}.{key} {condition}"
                tree = parse_filter(text)
                assert tree is not None
                expected = {trace.info.trace_id for trace in traces if matches(tree, trace)}
                for plan in PLANS:
                    with monkeypatch.context() as patched:
                        for name, value in plan.items():
                            patched.setattr(f"wherefrom.stores.sql.plan.{name}", value)
                        found = client.search_traces(filter_string=text, max_results=1000)
                    assert {trace.info.trace_id for trace in found} == expected, text


def random_pairs(chance: Random) -> dict[str, str]:
    return {key: chance.choice(VALUES) for key in chance.sample(KEYS, chance.choice((0, 1, 2, 5)))}


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_found_whatever_two_writers_do(
    stores: list[SQLiteStore], make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Written, written again, edited, deleted and rolled back, past the limit."""
    chance = Random(seed)
    client = TraceClient(stores[0])
    written: list[str] = []
    for _ in range(40):
        store = chance.choice(stores)
        step = chance.random()
        if step < 0.6 or not written:
            batch = [
                make_trace(trace_metadata=random_pairs(chance), tags=random_pairs(chance)) for _ in range(2)
            ]
            store.write(batch)
            written += [trace.info.trace_id for trace in batch]
        elif step < 0.75:
            again = make_trace(
                trace_id=chance.choice(written),
                trace_metadata=random_pairs(chance),
                tags=random_pairs(chance),
            )
            store.write([again])
        elif step < 0.85:
            value = chance.choice(VALUES)
            TraceClient(store).set_trace_tag(chance.choice(written), chance.choice(KEYS), value)
        elif step < 0.9:
            trace_id = written.pop(chance.randrange(len(written)))
            TraceClient(store).delete_traces("default", trace_ids=[trace_id])
        else:
            refused: Any = make_trace(trace_metadata=random_pairs(chance), request_time=0)
            refused.info.request_time = None
            with pytest.raises((StoreError, sqlite3.Error)):
                store.write([refused])
    assert_found(client, monkeypatch)


@pytest.mark.usefixtures("limits")
def test_a_key_that_another_process_learnt_last(
    stores: list[SQLiteStore], make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has no room left for it lists its values all the same."""
    first, second = stores
    for number in range(5):
        second.write([make_trace(trace_metadata={f"k{number}": "beta"})])
    first.write([make_trace(trace_metadata={"tenant": "acme"}) for _ in range(10)])
    second.write([make_trace(trace_metadata={"tenant": "acme"}) for _ in range(10)])
    client = TraceClient(first)
    assert len(client.search_traces(filter_string="metadata.tenant = 'acme'")) == 20
    assert_found(client, monkeypatch, ["tenant", "k0"])


def test_the_given_limit(stores: list[SQLiteStore], make_trace: MakeTrace) -> None:
    """The same at 10,000 keys."""
    first, second = stores
    for number in range(10):
        own = {f"k{number}.{other}": "1" for other in range(1_000)}
        second.write([make_trace(trace_metadata=own)])
    second.write([make_trace(trace_metadata={"tenant": "acme"}) for _ in range(10)])
    first.write([make_trace(trace_metadata={"tenant": "acme"}) for _ in range(10)])
    assert len(TraceClient(first).search_traces(filter_string="metadata.tenant = 'acme'")) == 20


_WRITER = """
import sys, uuid
from wherefrom import Trace, TraceInfo, TraceState
from wherefrom.model import TraceData
from wherefrom.stores.sql import known_keys
from wherefrom.stores.sqlite.store import SQLiteStore

known_keys.MAX_KEYS, known_keys.MAX_NEW_KEYS = 6, 3
store = SQLiteStore(sys.argv[1])
for line in sys.stdin:
    own = dict(pair.split("=") for pair in line.split())
    info = TraceInfo("tr-" + uuid.uuid4().hex, request_time=1, state=TraceState.OK, trace_metadata=own,
                     tags=dict(own))
    store.write([Trace(info, TraceData([]))])
    print(flush=True)
"""


def test_two_processes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each meets keys that the other brought in, before the limit and past it."""
    chance = Random(1)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for _ in range(60):
        process = chance.choice(processes)
        pairs = {key: chance.choice(("acme", "beta", "10", "9.5")) for key in chance.sample(KEYS, 2)}
        assert process.stdin is not None
        assert process.stdout is not None
        print(*(f"{key}={value}" for key, value in pairs.items()), file=process.stdin, flush=True)
        assert process.stdout.readline() == "\n"
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0
    with TraceClient(f"sqlite:///{path}") as client:
        assert len(client.search_traces(max_results=100)) == 60
        assert_found(client, monkeypatch)


@pytest.mark.usefixtures("limits")
def test_what_a_failed_write_learnt_is_forgotten(
    stores: list[SQLiteStore], make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ids are given to other keys, by another process."""
    first, second = stores
    first.write([make_trace()])
    refused: Any = make_trace(trace_metadata={"k1": "acme", "k2": "x" * 129})
    refused.info.request_time = None
    with pytest.raises((StoreError, sqlite3.Error)):
        first.write([refused])
    second.write([make_trace(trace_metadata={"k3": "acme", "k4": "acme"})])
    first.write([make_trace(trace_metadata={"k1": "acme", "k2": "x" * 129})])
    assert_found(TraceClient(first), monkeypatch)


@pytest.mark.parametrize("family", ["metadata", "tag"])
def test_a_trace_of_very_many_keys(
    stores: list[SQLiteStore], path: Path, make_trace: MakeTrace, family: str
) -> None:
    """Adds a bounded number of rows; all of its pairs are found, and so are those of other traces."""
    pairs = {f"k{number}": "v" for number in range(50_000)}
    huge = make_trace(**{"trace_metadata" if family == "metadata" else "tags": pairs})
    stores[0].write([huge, make_trace(trace_metadata={"k49999": "v"}, tags={"k49999": "v"})])
    with closing(sqlite3.connect(path)) as connection:
        known = connection.execute("SELECT count(*) FROM known_keys WHERE family = ?", (family,)).fetchone()
        listed = connection.execute("SELECT count(*) FROM trace_values").fetchone()
    assert known[0] <= known_keys.MAX_NEW_KEYS + 2
    assert listed[0] <= known_keys.MAX_NEW_KEYS + 4
    client = TraceClient(stores[1])
    for key, count in (("k0", 1), ("k49998", 1), ("k49999", 2), ("k50000", 0)):
        assert len(client.search_traces(filter_string=f"{family}.{key} = 'v'")) == count


@pytest.mark.parametrize("key", ["k" * 251, "", "a\0b", "k" * 100_000])
def test_a_key_that_is_never_known(stores: list[SQLiteStore], make_trace: MakeTrace, key: str) -> None:
    """One too long, an empty one and one with a NUL have no row; their pairs are found by a scan."""
    stores[0].write([make_trace(trace_metadata={key: "v", "k": "v"})])
    client = TraceClient(stores[1])
    assert client.list_keys() == ["k"]
    for text in (f"metadata.`{key}` = 'v'", f"metadata.`{key}` LIKE '%'", "metadata.k = 'v'"):
        try:
            found = client.search_traces(filter_string=text)
        except FilterError:
            assert key == ""
        else:
            assert len(found) == 1, text


@pytest.mark.usefixtures("limits")
def test_a_tag_that_is_edited(
    stores: list[SQLiteStore], make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that had no room stays unlisted, though a trace is given it alone."""
    tags = [{f"k{number}": "acme"} for number in range(10)]
    stores[0].write([traced := make_trace(tags=one) for one in tags])
    client = TraceClient(stores[1])
    for key in ("k9", "k0", "k11"):
        client.set_trace_tag(traced.info.trace_id, key, "beta")
    assert_found(client, monkeypatch)


def test_completion_and_hints_answer_past_the_limit(stores: list[SQLiteStore], make_trace: MakeTrace) -> None:
    """With all the keys that can be known, and others, of each family."""
    for number in range(11):
        trace = make_trace(trace_metadata={f"m{number}.{n}": "v" for n in range(1_000)})
        trace.info.tags = {f"t{number}.{n}": "v" for n in range(1_000)}
        trace.data.spans[0].attributes = {f"s{number}.{n}": "v" for n in range(1_000)}
        stores[0].write([trace])
    client = TraceClient(stores[1])
    for family in ("metadata", "tag", "span"):
        assert len(client.list_keys(family)) == known_keys.MAX_KEYS
    with pytest.raises(FilterError, match="no field"):
        client.search_traces(filter_string="m10x999 = 'v'")
    with stores[1].snapshot() as snapshot:
        found = offers("metadata.m3.99", snapshot, lambda _: True)
    assert len(found) == 11
    assert len(client.search_traces(filter_string="metadata.`m10.999` = 'v' AND tag.`t10.5` LIKE 'v'")) == 1
    assert compare(by="m10.999", store=stores[1]).left_out == 10
