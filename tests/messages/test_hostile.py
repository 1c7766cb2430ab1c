"""Whatever was recorded: reading a conversation does not raise, and keeps the types that it promises."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wherefrom.messages.attributes import read_attributes
from wherefrom.messages.content import Conversation, Message, Part, join_results, spell_call
from wherefrom.messages.conversation import main_span, read_conversation, read_span
from wherefrom.model import Span, SpanEvent
from wherefrom.web.blocks import blocks_of

WORDS = (
    "role",
    "content",
    "parts",
    "type",
    "text",
    "messages",
    "input",
    "output",
    "choices",
    "message",
    "delta",
    "index",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "id",
    "candidates",
    "generations",
    "contents",
    "kwargs",
    "data",
    "source",
    "image_url",
    "usage",
    "usage_metadata",
    "response",
    "item",
    "output_index",
    "content_block",
    "error",
    "config",
    "system",
    "system_instruction",
    "additional_kwargs",
    "response_metadata",
    "tool_call_id",
    "tool_call_chunks",
    "summary",
    "finish_reason",
    "input_tokens",
    "llm_output",
    "function_call",
    "inlineData",
    "functionResponse",
    "done",
    "audio",
    "object",
    "incomplete_details",
    "prompt",
    "model",
)
VALUES = (
    "user",
    "assistant",
    "tool",
    "ai",
    "AIMessageChunk",
    "text",
    "tool_use",
    "tool_result",
    "image",
    "reasoning",
    "function_call",
    "function_call_output",
    "message_start",
    "content_block_delta",
    "message_delta",
    "error",
    "response.output_text.delta",
    "response.created",
    "response",
    "chat.completion.chunk",
    "document",
    "base64",
    "",
    "...",
    "data:",
    "data:image/png;base64,AAAA",
    "x_call",
    "\x1b[2J\u202e\ud83d\ude00",
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=25,
)


DOCUMENT = {"type": "document", "source": {"type": "text", "data": "\ud83d"}}


def called(arguments: Any) -> dict[str, Any]:
    """An answer that only calls a tool."""
    return {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


def check(found: Conversation | None) -> None:
    if found is None:
        return
    for message in (*found.asked, *found.answers):
        assert isinstance(message, Message)
        assert isinstance(message.role, str)
        check_parts(message.parts)
    assert found.question is None or isinstance(found.question, str)
    assert found.answer is None or isinstance(found.answer, str)
    assert found.model is None or isinstance(found.model, str)
    assert all(isinstance(reason, str) for reason in found.finish_reasons)
    assert found.usage is None or all(count >= 0 for count in found.usage.to_dict().values())
    joined = join_results(found.asked)
    assert count(joined) == count(found.asked)


def check_parts(parts: tuple[Part, ...]) -> None:
    for part in parts:
        assert isinstance(part, Part)
        for text in (part.text, part.name, part.id, part.mime):
            assert text is None or isinstance(text, str)
        assert part.size is None or part.size >= 0
        assert isinstance(spell_call(part), str)
        check_parts(part.parts)


def count(messages: tuple[Message, ...]) -> int:
    """The number of parts, those in parts too."""
    return sum(_count(part) for message in messages for part in message.parts)


def _count(part: Part) -> int:
    return 1 + sum(map(_count, part.parts))


def nested(open_: str, times: int) -> Any:
    return json.loads(f"{open_ * times}1{('}' if open_[0] == '{' else ']') * times}")


@settings(max_examples=150, deadline=None)
@given(JSON, JSON)
@example(None, {"candidates": [{"content": "hello"}]})
@example(None, called(nested("[", 300)))
@example(None, called("[" * 300 + "]" * 300))
@example(None, called({"x": nested("[", 300)}))
@example(None, called({"x": 2**70}))
@example(None, called({"x": "\ud83d"}))
@example({"messages": [{"role": "user", "content": DOCUMENT}]}, None)
@example(None, [{"type": "content_block_start", "content_block": {"type": "text", "text": 1}}])
def test_any_json(inputs: Any, outputs: Any) -> None:
    """As values, as bodies, and as the data of a stream."""
    check(read_conversation(inputs, outputs))
    check(read_conversation(json.dumps(inputs), json.dumps(outputs)[:-1] + "..."))
    items = outputs if isinstance(outputs, list) else [outputs]
    check(read_conversation(inputs, "".join(f"data: {json.dumps(item)}\n\n" for item in items)))


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            (
                "gen_ai.input.messages",
                "gen_ai.output.messages",
                "gen_ai.system_instructions",
                "gen_ai.prompt.0.content",
                "gen_ai.prompt.0",
                "gen_ai.completion.0.role",
                "gen_ai.response.finish_reasons",
                "content",
                "message",
                "role",
                "body",
            )
        ),
        JSON,
    )
)
def test_any_attributes(attributes: dict[str, Any]) -> None:
    """On the span and on its events."""
    names = ("gen_ai.choice", "gen_ai.user.message", "gen_ai.tool.message", "gen_ai.content.prompt", "other")
    given_events = [SpanEvent(name, 0, attributes) for name in names]
    read_attributes(attributes, given_events)
    check(read_conversation(None, None, attributes, given_events))


@pytest.mark.parametrize("open_", ["[", '{"content":', '{"messages":[', '{"choices":[{"delta":{"a":'])
def test_deep_nesting(open_: str) -> None:
    """JSON that is nested a thousand times is no conversation."""
    value: Any = "x"
    for _ in range(2_000):
        value = [value] if open_ == "[" else {"role": "user", "content": value}
    check(read_conversation(value, {"choices": [{"delta": value}]}))
    check(read_conversation(None, [{"choices": [{"delta": value}]}]))
    check(read_conversation(open_ * 2_000, open_ * 2_000 + "..."))


@pytest.mark.parametrize(
    ("outputs", "answer"),
    [
        ({"candidates": [{"content": "hello"}]}, "hello"),
        (called({"x": 2**70}), "f(x=1180591620717411303424)"),
        (called({"x": "\ud83d"}), 'f(x="\\ud83d")'),
        (called(["[" * 300 + "]" * 300]), f'f(["{"[" * 300}{"]" * 300}"])'),
        (called("[" * 300 + "]" * 300), f"f({'[' * 300}{']' * 300})"),
        (called(nested("[", 300)), f"f({'[' * 300}1{']' * 300})"),
        ([{"type": "content_block_start", "content_block": {"type": "x", "text": 1}}], None),
    ],
)
def test_odd_answers_are_read(outputs: Any, answer: str | None) -> None:
    """Arguments that are no JSON of every program are spelled all the same."""
    found = read_conversation(None, outputs)
    assert found is not None
    assert found.answer == answer
    assert list(blocks_of(found))


def test_a_document_with_half_a_character() -> None:
    """Its size is that of its text."""
    found = read_conversation({"messages": [{"role": "user", "content": DOCUMENT}]}, None)
    assert found is not None
    assert found.asked[0].parts[0].size == 3


def test_blocks_in_blocks() -> None:
    """Calls in the results of calls are read to some depth; the rest is data that fits into JSON."""
    for open_ in ('{"type":"x_call","output":', '{"type":"tool_result","content":'):
        for holder in (open_, '{"a":'):
            content = json.loads(f"{open_}{holder * 149}1{'}' * 150}")
            found = read_conversation({"messages": [{"role": "user", "content": content}]}, None)
            assert found is not None
            blocks = [asdict(block) for block in blocks_of(found)]
            assert orjson.dumps({"steps": [{"parts": [asdict(one) for one in found.asked], "b": blocks}]})


def test_many_indexes_of_deltas() -> None:
    """Each index is one item, in the order in which they came."""
    calls = [{"index": at % 3_000, "function": {"arguments": "x"}} for at in range(6_000)]
    found = read_conversation(None, [{"choices": [{"delta": {"tool_calls": [call]}}]} for call in calls])
    assert found is not None
    assert [part.arguments for part in found.answers[0].parts] == ["xx"] * 3_000


def test_many_results_without_calls() -> None:
    """Results are found by id in a table: ten thousand of them take no square of that."""
    calls = [{"id": f"c{at}", "function": {"name": "f", "arguments": "{}"}} for at in range(3_000)]
    results = [{"role": "tool", "tool_call_id": f"c{at}", "content": "x"} for at in range(3_000)]
    found = read_conversation({"messages": [{"role": "assistant", "tool_calls": calls}, *results]}, None)
    assert found is not None
    (message,) = join_results(found.asked)
    assert all(part.parts for part in message.parts)


def test_cycles_of_spans() -> None:
    """A span that is its own ancestor has some depth."""
    spans = [
        Span("tr-1", str(at), str((at + 1) % 3), "s", inputs={"messages": [["user", "hi"]]})
        for at in range(3)
    ]
    found = {span.span_id: one for span in spans if (one := read_span(span)) is not None}
    assert main_span(spans, found) == "0"
