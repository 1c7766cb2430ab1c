"""How long it takes to read a conversation when a trace ends, against making its previews without that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from wherefrom._capture.values import preview
from wherefrom.messages.bodies import abridged
from wherefrom.messages.conversation import read_conversation

REQUEST = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello " * 20}] * 5}
RESPONSE = {
    "choices": [{"message": {"role": "assistant", "content": "x" * 200}}],
    "usage": {"prompt_tokens": 1},
}
ROUNDS = 9


def stream(words: int) -> str:
    chunk = {
        "object": "chat.completion.chunk",
        "model": "gpt-4o",
        "choices": [{"delta": {"content": "word "}}],
    }
    return f"data: {json.dumps(chunk)}\n\n" * words


def microseconds(call: Callable[[], Any]) -> float:
    """The CPU time of one call, the least of several rounds."""
    call()
    best = float("inf")
    for _ in range(ROUNDS):
        start, count = time.thread_time_ns(), 0
        while time.thread_time_ns() - start < 20_000_000:
            call()
            count += 1
        best = min(best, (time.thread_time_ns() - start) / count / 1_000)
    return best


def main() -> None:
    short, long = stream(30), stream(8_000)
    pairs: dict[str, tuple[Any, Any]] = {
        "no conversation": ({"a": 1, "b": {"c": [1, 2, 3]}}, {"ok": True}),
        "a request of five messages, and its response": (REQUEST, RESPONSE),
        f"a stream of {len(short):,} characters": (REQUEST, short),
        f"a stream of {len(long):,} characters": (REQUEST, long),
    }
    print("| inputs and outputs | previews, µs | reading the conversation, µs |\n|---|---:|---:|")
    for name, (asked, answered) in pairs.items():
        previews = microseconds(lambda: (preview(asked, 8_000), preview(answered, 8_000)))  # noqa: B023
        reading = microseconds(lambda: read_conversation(abridged(asked), abridged(answered)))  # noqa: B023
        print(f"| {name} | {previews:.0f} | {reading:.0f} |")


if __name__ == "__main__":
    main()
