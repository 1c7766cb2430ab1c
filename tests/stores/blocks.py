"""Blocks that a store has counted, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from wherefrom.stores.base import ALONE, CODE, BlockColumns, Durations


class Block(NamedTuple):
    """A row of ``BlockColumns``, with durations and those that failed by bucket; less than 0 to subtract."""

    value: str | None
    stratum: str
    process: str
    time: int
    traces: int
    errors: int
    durations: dict[int, int]
    failed: dict[int, int]


def each_block(batches: Iterable[BlockColumns]) -> Iterator[Block]:
    """The blocks of columns; a block may come in several parts."""
    for one in batches:
        key = one.values, one.strata, one.processes, one.times
        numbers = ([one.sign * number for number in column] for column in (one.traces, one.errors))
        found = map(Block, *key, *numbers, _each(one.durations, one.sign), _each(one.failed, one.sign))
        yield from found if one.buckets is None else (_within(block, *one.buckets) for block in found)


def _within(block: Block, first: int, last: int) -> Block:
    durations, failed = (
        {bucket: number for bucket, number in each.items() if first <= bucket <= last}
        for each in (block.durations, block.failed)
    )
    traces, errors = sum(durations.values()), sum(failed.values())
    return block._replace(traces=traces, errors=errors, durations=durations, failed=failed)


def _each(durations: Durations, sign: int) -> Iterator[dict[int, int]]:
    alone, codes = map(ord, durations.alone), iter(durations.codes)
    for number, others in zip(durations.alone_each, durations.codes_each, strict=True):
        found: dict[int, int] = {}
        for character in islice(alone, number):
            found[character - ALONE] = found.get(character - ALONE, 0) + sign
        for code in islice(codes, others):
            found[code % CODE - 1] = found.get(code % CODE - 1, 0) + sign * (code // CODE)
        yield found
