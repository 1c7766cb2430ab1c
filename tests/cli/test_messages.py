"""Conversations in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .conftest import HOSTILE, is_harmless, make_span, make_trace, run

Write = Callable[..., None]
CALL = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
FAILED = [{"type": "tool_result", "tool_use_id": "c1", "is_error": True, "content": [{"type": "x", "a": 1}]}]


def show(write: Write, messages: list[Any], outputs: Any) -> str:
    span = make_span("root", None, 0, 100, inputs={"model": "gpt-4o", "messages": messages}, outputs=outputs)
    write(make_trace(1, spans=[span]))
    result = run("show", "latest")
    assert result.code == 0
    return result.out


def test_the_last_turn_is_printed_in_full(write: Write) -> None:
    """Earlier messages are one line each; calls are joined to their results; files are named."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    question = {"role": "user", "content": [{"type": "text", "text": "How is\nRome?"}, image]}
    messages = [
        {"role": "system", "content": "Be\nbrief."},
        *({"role": "user", "content": f"turn {at}"} for at in range(25)),
        question,
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [CALL]},
        {"role": "user", "content": FAILED},
    ]
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    out = show(
        write,
        messages,
        {
            "choices": [{"message": {"content": "*Sunny*."}, "finish_reason": "stop"}],
            "usage": usage,
            "model": "gpt-4o",
        },
    )
    assert "Conversation (gpt-4o, stop)" in out
    assert "6 earlier messages: use --json" in out
    assert "  user turn 24  7 characters\n" in out
    assert "turn 4 " not in out
    lines = [line.strip() for line in out.partition("  user\n")[2].splitlines()]
    assert lines[:10] == [
        "How is", "Rome?", "[image, image/png, 8 B]", "assistant", "Hm.", 'weather(city="Rome")', "✗ failed",
        '{"type":"x","a":1}', "assistant", "*Sunny*.",
    ]  # fmt: skip
    assert "1,000 in, 100 out" in out
    assert "$0.0035" in out
    assert "Request preview" not in out


def test_a_conversation_that_was_cut(write: Write) -> None:
    """It says so."""
    out = show(write, [["user", "hi"]], 'data: {"choices":[{"delta":{"content":"He"}}]}\n\ndata: {"...')
    assert "The recorded response ends early." in out


def test_hostile_messages(write: Write) -> None:
    """Control characters are cleaned, as elsewhere."""
    call = {"function": {"name": HOSTILE, "arguments": HOSTILE}}
    messages = [
        {"role": HOSTILE, "content": HOSTILE},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {
            "role": "user",
            "content": [{"type": "text", "text": HOSTILE}, {"type": HOSTILE, "a": HOSTILE}],
            "name": HOSTILE,
        },
        {"role": "tool", "tool_call_id": HOSTILE, "content": HOSTILE},
    ]
    assert is_harmless(show(write, messages, {"role": "assistant", "content": HOSTILE}))
