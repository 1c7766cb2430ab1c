"""How databases write durations by bucket, read into columns: see ``Durations``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from ..base import ALONE, CODE, Durations, integers


def of_codes(texts: Sequence[str]) -> Durations:
    """The durations of blocks whose codes are JSON."""
    each = [text.count(",") + 1 if len(text) > 2 else 0 for text in texts]
    return Durations("", [0] * len(each), commas(texts), each)


def of_texts(
    some: Iterable[str | bytes], some_each: Iterable[str], codes: Iterable[str], codes_each: Iterable[str]
) -> Durations:
    """The durations of blocks whose columns are characters and JSON."""
    return Durations("".join(map(characters, some)), *map(commas, (some_each, codes, codes_each)))


def of_alone(found: Sequence[Any]) -> Durations:
    """What ``alone`` has made: JSON, or characters."""
    if isinstance(found[0], str):
        return of_codes(found)
    texts = [*map(characters, found)]
    return Durations("".join(texts), [*map(len, texts)], [], [0] * len(texts))


def by_bucket(durations: Durations) -> Counter[int]:
    """The durations in each bucket."""
    found = Counter({ord(bucket) - ALONE: number for bucket, number in Counter(durations.alone).items()})
    for code, number in Counter(integers(durations.codes)).items():
        found[code % CODE - 1] += number * (code // CODE)
    return found


def characters(found: str | bytes | None) -> str:
    """The characters of ``Durations.alone``: not every encoding of a database has them."""
    return found.decode("utf-16-be") if isinstance(found, bytes) else found or ""


def commas(arrays: Iterable[str]) -> str:
    """The elements of JSON arrays as they are written, with commas between."""
    return ",".join([text[1:-1] for text in arrays if len(text) > 2])


def joined(arrays: Iterable[str]) -> list[Any]:
    """The elements of JSON arrays, which are read together, as each alone takes longer."""
    elements: list[Any] = orjson.loads(f"[{commas(arrays)}]")
    return elements
