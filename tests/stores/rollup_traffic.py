"""Random operations on a store by one of several processes, and what its traces then say."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing import get_context
from operator import add
from random import Random
from typing import Any, Final

import numpy as np
import orjson
import psycopg

from tests.analysis.traffic import START, make_trace
from tests.stores.blocks import each_block
from wherefrom import Trace, TraceState, keys
from wherefrom.analysis.statistics import Sample, quantile
from wherefrom.exceptions import StoreUnavailableError, TraceNotFoundError
from wherefrom.model import Source
from wherefrom.query.fields import METADATA, Field, find_field, with_key
from wherefrom.stores import Selection, Snapshot, open_store
from wherefrom.stores.base import COST, TOKENS
from wherefrom.stores.postgresql.store import PostgreSQLStore
from wherefrom.stores.sql.schema import HOUR_MS
from wherefrom.stores.sqlite.store import SQLiteStore

RollingStore = SQLiteStore | PostgreSQLStore
"""A store that rolls up when it is told to."""

HOURS: Final = [START // HOUR_MS * HOUR_MS + number * HOUR_MS for number in range(40)]
FLAG: Final = "feature_flag_x"
SHARES: Final = (0.5, 0.95)
SOURCES: Final = [Source({keys.APP_VERSION: version}) for version in ("1", "2", "3")]
NAMES: Final = ("GET /a", "GET /b", "POST /c")
COSTS: Final = (
    '{"total_cost":0.0071}',
    '{"total_cost":3e-7}',
    '{"total_cost":-1}',
    '{"total_cost":"1"}',
    "[",
)


def open_rolling(url: str) -> RollingStore:
    """The store of a URL."""
    store = open_store(url)
    assert isinstance(store, RollingStore)
    return store


_ATTEMPTS = 10


class Writer:
    """One process; its traces are those whose number leaves ``own`` when divided by 8."""

    def __init__(self, url: str, own: int) -> None:
        self.store = open_rolling(url)
        self.done: Counter[str] = Counter()
        self._random, self._own, self._count = Random(own), own, 0
        self._kinds: dict[str, float] = {"write": 10, "late": 3, "complete": 3, "rename": 3, "tag": 1}
        self._kinds |= {"delete": 2, "delete_some": 0.2, "roll_up": 0.3}

    def step(self) -> None:
        """Do one operation."""
        (kind,) = self._random.choices([*self._kinds], [*self._kinds.values()])
        try:
            getattr(self, kind)()
        except TraceNotFoundError:
            return
        self.done[kind] += 1

    def write(self) -> None:
        """A batch of new traces, some of them in progress."""
        self._send([self._trace(self._next()) for _ in range(self._random.randrange(1, 6))])

    def late(self) -> None:
        """A trace comes once more, with another state, duration and flag."""
        self._send([self._trace(self._some())])

    def complete(self) -> None:
        """A trace begins, and ends in the next batch."""
        number, at = self._next(), self._time()
        self._send([make_trace(number, source=SOURCES[0], ms=None, at=at)])
        self._send([make_trace(number, source=SOURCES[0], ms=self._ms(), at=at)])

    def rename(self) -> None:
        """A trace gets another name, which is a tag."""
        self.store.set_tag(f"tr-{self._some():032x}", keys.TRACE_NAME_TAG, self._random.choice(NAMES))

    def tag(self) -> None:
        """A trace loses its name."""
        self.store.delete_tag(f"tr-{self._some():032x}", keys.TRACE_NAME_TAG)

    def delete(self) -> None:
        """Single traces go."""
        ids = [f"tr-{self._some():032x}" for _ in range(2)]
        self.store.delete("default", trace_ids=ids)

    def delete_some(self) -> None:
        """The oldest traces go."""
        self.store.delete("default", until_ms=self._random.choice(HOURS[:5]) + 1_000_000, limit=3)

    def roll_up(self) -> None:
        """Hours are rolled up while the others write to them."""
        self.store.roll_up()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def _send(self, traces: list[Trace]) -> None:
        """Write as a sink does: again, where another process has just deleted what a trace refers to."""
        for attempt in range(_ATTEMPTS):
            try:
                self.store.write(traces)
            except StoreUnavailableError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def _next(self) -> int:
        self._count += 1
        return self._count * 8 + self._own

    def _some(self) -> int:
        return self._random.randrange(1, self._count + 2) * 8 + self._own

    def _time(self) -> int:
        return self._random.choice(HOURS) + self._random.randrange(HOUR_MS)

    def _ms(self) -> float:
        return round(self._random.lognormvariate(4, 1), 3)

    def _trace(self, number: int) -> Trace:
        random = self._random
        return make_trace(
            number,
            source=random.choice(SOURCES),
            ms=random.choice([None, self._ms()]),
            failed=random.random() < 0.2,
            at=self._time(),
            name=random.choice(NAMES),
            metadata={keys.INSTANCE_ID: f"p{self._own}"}
            | ({keys.COST: random.choice(COSTS)} if random.random() < 0.5 else {})
            | random.choice([{}, {FLAG: "on"}, {FLAG: "off", keys.TOKEN_USAGE: '{"total_tokens":2}'}]),
        )


def write(url: str, own: int, operations: int) -> None:
    """Do so many operations."""
    writer = Writer(url, own)
    for _ in range(operations):
        writer.step()
    writer.close()


def main(url: str) -> None:
    """Write from four processes at once: of one that has imported all, and has opened nothing."""
    forked = get_context("fork")
    processes = [forked.Process(target=write, args=(url, own, 150)) for own in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4


@dataclass
class Truth:
    """The traces with one value."""

    traces: int = 0
    errors: int = 0
    tokens: int = 0
    times: list[int] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)


FIELDS: Final = {
    "version": with_key(METADATA, keys.APP_VERSION),
    "name": find_field(None, "name"),
    "flag": with_key(METADATA, FLAG),
}


def expected(url: str) -> dict[str, dict[str | None, Truth]]:
    """For each field, what the rows of the traces say of each value; read without our code."""
    found: dict[str, dict[str | None, Truth]] = {name: {} for name in FIELDS}
    for of_source, name, own, state, time, duration_us in _rows(url):
        pairs = own if isinstance(own, dict) else orjson.loads(own)
        of_source = of_source if isinstance(of_source, dict) else orjson.loads(of_source)
        values = {"version": of_source.get(keys.APP_VERSION), "name": name, "flag": pairs.get(FLAG)}
        for field_name, value in values.items():
            truth = found[field_name].setdefault(value, Truth())
            truth.traces += 1
            truth.errors += state == TraceState.ERROR.value
            truth.tokens += orjson.loads(pairs.get(keys.TOKEN_USAGE, "{}")).get("total_tokens", 0)
            truth.times.append(time)
            truth.durations += [] if duration_us is None else [duration_us]
    return found


def _rows(url: str) -> Iterator[Any]:
    query = """
        SELECT sources.metadata, traces.name, traces.metadata, state, request_time, duration_us
        FROM traces JOIN sources ON sources.id = source_id
    """
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            yield from connection.execute(query)
    else:
        url, _, schema = url.partition("&schema=")
        with psycopg.connect(url, options=f"-c search_path={schema or 'public'}") as server:
            yield from server.execute(query.encode()).fetchall()


def blocks_of(
    snapshot: Snapshot,
    selection: Selection,
    width_ms: int,
    by: Field = FIELDS["version"],
    stratum: Field | None = FIELDS["name"],
) -> dict[Any, list[Any]]:
    """The blocks by value and stratum, of which a store may count each in parts."""
    found: dict[Any, list[Any]] = {}
    for one in each_block(snapshot.block_columns(selection, by, stratum, width_ms)):
        sums = found.setdefault(one[:4], [0, 0, {}, {}])
        sums[:2] = sums[0] + one.traces, sums[1] + one.errors
        for total, own in zip(sums[2:], (one.durations, one.failed), strict=True):
            for bucket, number in own.items():
                total[bucket] = total.get(bucket, 0) + number
    for sums in found.values():
        sums[2:] = ({bucket: number for bucket, number in each.items() if number} for each in sums[2:])
    return {block: sums for block, sums in found.items() if sums[0]}


def amounts_of(snapshot: Snapshot, selection: Selection, width_ms: int) -> dict[Any, list[float]]:
    """The amounts of versions and routes by block: sums, of which a store may give each in parts."""
    found: dict[Any, list[float]] = {}
    asked = FIELDS["version"], FIELDS["name"], width_ms, [TOKENS, COST]
    for one in snapshot.amounts(selection, *asked):
        sums = found.setdefault(one[:5], [0, 0, 0])
        sums[:] = map(add, sums, one[5:])
    return found


def check(store: RollingStore, truth: dict[str, dict[str | None, Truth]]) -> None:
    """Counts are exact, quantiles within 1 %."""
    with store.snapshot() as snapshot:
        for name, by in FIELDS.items():
            groups = {one.value: one for one in snapshot.groups(Selection(), by, with_tokens=True)}
            assert groups.keys() == truth[name].keys()
            for value, own in truth[name].items():
                group = groups[value]
                assert (group.traces, group.errors) == (own.traces, own.errors)
                assert (group.first_seen, group.last_seen) == (min(own.times), max(own.times))
                assert (0 if group.tokens is None else group.tokens.total) == own.tokens
                sample = Sample(group.succeeded) + Sample(group.failed)
                assert len(sample) == len(own.durations)
                for share in SHARES if own.durations else ():
                    exact = float(np.quantile(own.durations, share))
                    assert abs(quantile(sample, share) - exact) <= 0.01 * exact
