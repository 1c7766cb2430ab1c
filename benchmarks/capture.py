"""The cost of recording hostile values: time of the thread, and peak memory.

    python benchmarks/capture.py

Values are made before the measurement. The aim is under 5 ms and 4 MB for each.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict

from wherefrom import MemorySink, Settings, update_current_trace
from wherefrom._capture.values import snapshot
from wherefrom.context import enter, leave
from wherefrom.model import Source
from wherefrom.tracing.exceptions import exception_attributes
from wherefrom.tracing.live import LiveTrace
from wherefrom.tracing.recorder import Recorder


class Item(BaseModel):
    name: str
    scores: list[float]


class Items(BaseModel):
    items: list[Item]


class Vector(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    values: np.ndarray


class Row:
    def __repr__(self) -> str:
        return "Row()"


def friends(count: int = 8) -> list[dict[str, Any]]:
    people: list[dict[str, Any]] = [{"name": str(number)} for number in range(count)]
    for person in people:
        person["friends"] = people
    return people


def tree(count: int = 3000) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = [{"name": "0", "parent": None, "children": []}]
    for number in range(1, count):
        parent = nodes[number // 2]
        nodes.append({"name": str(number), "parent": parent, "children": []})
        parent["children"].append(nodes[-1])
    return nodes[0]


def shared(levels: int = 28) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value, value]
    return value


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


RECORDER = Recorder(Settings(store="none"), Source({}), MemorySink())


def live() -> LiveTrace:
    return RECORDER.start("root")


def add_events(count: int) -> None:
    root = live().root
    for _ in range(count):
        root.add_event("e", {"a": 1})


def tag(pairs: dict[str, Any]) -> None:
    trace = live()
    tokens = enter(trace, trace.root)
    update_current_trace(tags=pairs, metadata=pairs)
    leave(tokens)


def finished(value: Any) -> Callable[[], Any]:
    trace = live()
    trace.root.set_inputs(value)
    return partial(trace.recorder.finish, trace)


def recursive(levels: int = 900) -> None:
    if levels:
        recursive(levels - 1)
    raise ValueError("x" * 1_000_000)


def raised(call: Callable[[], Any]) -> Callable[[], Any]:
    try:
        call()
    except Exception as error:
        return partial(exception_attributes, error)
    raise AssertionError


def chained(count: int = 100_000) -> None:
    last = ValueError("first")
    for _ in range(count):
        following = ValueError("next")
        following.__context__ = last
        last = following
    raise last


def grouped(width: int = 1_000) -> None:
    inner = ExceptionGroup("inner", [ValueError("x" * 10_000)] * width)
    raise ExceptionGroup("outer", [inner] * width)


FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})

VALUES: dict[str, Any] = {
    "8 dicts that know each other": friends(),
    "tree of 3,000 with parents": tree(),
    "28 nested shared lists": shared(),
    "50,000 nested lists": nested(50_000),
    "pydantic model of 500 kB": Items(items=[Item(name="x" * 80, scores=[0.1] * 5) for _ in range(5000)]),
    "4K image": np.zeros((2160, 3840, 3), np.uint8),
    "array of 10 million, turned": np.zeros((1000, 10_000)).T,
    "10,000 small arrays": [np.arange(3) for _ in range(10_000)],
    "10,000 data frames": [FRAME.copy() for _ in range(10_000)],
    "data frame of 10 million": pd.DataFrame(np.zeros((100_000, 100))),
    "10,000 images": [Image.new("RGB", (9, 9)) for _ in range(10_000)],
    "10,000 models with an array": [Vector(values=np.arange(3)) for _ in range(10_000)],
    "million numbers": list(range(1_000_000)),
    "million small dicts": [{"a": 1}] * 1_000_000,
    "million different dicts": [{"a": 1, "b": [2]} for _ in range(1_000_000)],
    "million keys": {f"key {number}": number for number in range(1_000_000)},
    "million objects": [Row() for _ in range(1_000_000)],
    "100 MB of text": "x" * 100_000_000,
    "100 MB of wide text": "\U0001f642" * 25_000_000,
    "100 MB of bytes": bytes(100_000_000),
    "million strings": ["hello world"] * 1_000_000,
    "number of a million digits": 10**1_000_000,
}


def cases() -> dict[str, Callable[[], Any]]:
    wide = {f"key {number}": number for number in range(1_000_000)}
    large = {f"key {number}": "x" * 1_000_000 for number in range(500)}
    found: dict[str, Callable[[], Any]] = {name: partial(snapshot, value) for name, value in VALUES.items()}
    found["million attributes"] = lambda: live().root.set_attributes(wide)
    found["500 attributes of 1 MB"] = lambda: live().root.set_attributes(large)
    found["event of a million attributes"] = lambda: live().root.add_event("e", wide)
    found["million keys of metadata"] = lambda: tag(wide)
    found["metadata of a million numbers"] = lambda: live().add_metadata({"k": VALUES["million numbers"]})
    found["end of a trace with 1 MB of input"] = finished("\0" * 1_000_000)
    found["end of a trace with a million dicts"] = finished(VALUES["million different dicts"])
    found["exception 900 frames deep"] = raised(recursive)
    found["exception with 400 problems"] = raised(lambda: Items(items=[{}] * 200))  # type: ignore[list-item]
    found["chain of 100,000 exceptions"] = raised(chained)
    found["group of a million exceptions"] = raised(grouped)
    return found


def measure(call: Callable[[], Any]) -> tuple[float, float]:
    """Return milliseconds, the best of five, and the peak memory in MB."""
    gc.collect()
    times = []
    for _ in range(5):
        started = time.thread_time()
        call()
        times.append(time.thread_time() - started)
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return min(times) * 1000, peak / 1e6


def main() -> None:
    print(f"{'value':40}{'ms':>8}{'MB':>8}")
    for name, call in cases().items():
        took, peak = measure(call)
        print(f"{name:40}{took:8.2f}{peak:8.2f}")
    started = time.thread_time()
    add_events(1_000_000)
    print(f"{'million events, us a call':40}{time.thread_time() - started:8.2f}")


if __name__ == "__main__":
    main()
