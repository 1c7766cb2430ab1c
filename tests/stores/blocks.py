"""Blocks that a store has counted, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from wherefrom.stores.base import ALONE, CODE, BlockColumns, Durations, integers


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
        groups = [one.groups[place] for place in one.of_groups]
        key = *zip(*(group or (None, "") for group in groups), strict=True), one.processes, one.times
        numbers = ([one.sign * number for number in integers(column)] for column in (one.traces, one.errors))
        found = map(Block, *key, *numbers, _each(one.durations, one.sign), _each(one.failed, one.sign))
        for group, block in zip(groups, found, strict=True):
            if group is not None:
                yield block if one.buckets is None else _within(block, *one.buckets)


def _within(block: Block, first: int, last: int) -> Block:
    durations, failed = (
        {bucket: number for bucket, number in each.items() if first <= bucket <= last}
        for each in (block.durations, block.failed)
    )
    traces, errors = sum(durations.values()), sum(failed.values())
    return block._replace(traces=traces, errors=errors, durations=durations, failed=failed)


def _each(durations: Durations, sign: int) -> Iterator[dict[int, int]]:
    alone, codes = map(ord, durations.alone), iter(integers(durations.codes))
    for number, others in zip(integers(durations.alone_each), integers(durations.codes_each), strict=True):
        found: dict[int, int] = {}
        for character in islice(alone, number):
            found[character - ALONE] = found.get(character - ALONE, 0) + sign
        for code in islice(codes, others):
            found[code % CODE - 1] = found.get(code % CODE - 1, 0) + sign * (code // CODE)
        yield found
