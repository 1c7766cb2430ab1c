"""Conversations in the attributes and events of OpenTelemetry's GenAI conventions and their forerunners."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wherefrom.messages.content import Conversation, Message, Part, Usage
from wherefrom.messages.conversation import conversation_of_call, read_conversation
from wherefrom.model import Span, SpanEvent

INPUT: list[Any] = [
    {
        "role": "user",
        "parts": [
            {"type": "text", "content": "hi"},
            {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "iVBORw0KGgo="},
        ],
    },
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Rome"}}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "sunny"}]},
    {
        "role": "user",
        "parts": [
            {"type": "uri", "modality": "video", "uri": "gs://a.mp4"},
            {"type": "file", "modality": "image", "file_id": "f1"},
        ],
    },
]
OUTPUT: list[Any] = [
    {
        "role": "assistant",
        "parts": [{"type": "reasoning", "content": "Hm."}, {"type": "text", "content": "Sunny."}],
        "finish_reason": "stop",
    }
]
SYSTEM = [{"type": "text", "content": "Be brief."}]
CALL = Part("tool_call", name="weather", id="call_1", arguments={"city": "Rome"})
RESULT = Part("tool_result", id="call_1", parts=(Part("text", "sunny"),))


def read(attributes: dict[str, Any], *events: tuple[str, dict[str, Any]]) -> Conversation:
    found = read_conversation(None, None, attributes, [SpanEvent(name, 0, each) for name, each in events])
    assert found is not None
    return found


@pytest.mark.parametrize("encode", [json.dumps, lambda value: value], ids=["text", "data"])
@pytest.mark.parametrize("on_event", [False, True], ids=["span", "event"])
def test_the_current_attributes(encode: Any, on_event: bool) -> None:
    """On a span and perhaps its event too, or on the event alone, as JSON text or as data."""
    given = {
        "gen_ai.system_instructions": encode(SYSTEM),
        "gen_ai.input.messages": encode(INPUT),
        "gen_ai.output.messages": encode(OUTPUT),
    }
    about = {
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 8,
    }
    event = ("gen_ai.client.inference.operation.details", given)
    found = read(about, event) if on_event else read(about | given, event)
    assert found.asked == (
        Message("system", (Part("text", "Be brief."),)),
        Message("user", (Part("text", "hi"), Part("image", mime="image/png", size=8))),
        Message("assistant", (CALL,)),
        Message("tool", (RESULT,)),
        Message("user", (Part("video", name="gs://a.mp4"), Part("image", name="f1"))),
    )
    assert found.answers == (Message("assistant", (Part("reasoning", "Hm."), Part("text", "Sunny."))),)
    assert (found.model, found.finish_reasons) == ("gpt-4o-2024-08-06", ("stop",))
    assert found.usage == Usage(20, 5, 25, cache_read_input_tokens=8)


def test_an_event_for_each_message() -> None:
    """The events of before, with attributes or with one JSON text."""
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
    }
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Sunny."}}
    found = read(
        {"gen_ai.response.finish_reasons": ["ignored"]},
        ("gen_ai.system.message", {"content": "Be brief."}),
        ("gen_ai.user.message", {"gen_ai.event.content": '{"content": "hi"}'}),
        ("gen_ai.assistant.message", {"tool_calls": json.dumps([call])}),
        ("gen_ai.tool.message", {"id": "call_1", "content": "sunny"}),
        ("gen_ai.choice", {"event_body": json.dumps(choice)}),
        ("other", {"content": "no"}),
    )
    assert [message.role for message in found.asked] == ["system", "user", "assistant", "tool"]
    assert found.asked[2:] == (Message("assistant", (CALL,)), Message("tool", (RESULT,)))
    assert (found.question, found.answer, found.finish_reasons) == ("hi", "Sunny.", ("stop",))
    flat = read({}, ("gen_ai.choice", {"message": "Sunny.", "index": 0}))
    assert flat.answer == "Sunny."


def test_events_with_prompt_and_completion() -> None:
    """The first events of all had the whole prompt as JSON."""
    prompt, completion = (
        json.dumps([{"role": "user", "content": "hi"}]),
        json.dumps([{"role": "assistant", "content": "Hello."}]),
    )
    found = read(
        {},
        ("gen_ai.content.prompt", {"gen_ai.prompt": prompt}),
        ("gen_ai.content.completion", {"gen_ai.completion": completion}),
    )
    assert (found.question, found.answer) == ("hi", "Hello.")


def test_numbered_attributes() -> None:
    """OpenLLMetry's and OpenInference's, in the order of their numbers."""
    found = read(
        {f"gen_ai.prompt.{at}.content": f"turn {at}" for at in range(11, -1, -1)}
        | {f"gen_ai.prompt.{at}.role": "user" for at in range(12)}
        | {
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.finish_reason": "stop",
            "gen_ai.completion.0.tool_calls.0.id": "call_1",
            "gen_ai.completion.0.tool_calls.0.name": "weather",
            "gen_ai.completion.0.tool_calls.0.arguments": '{"city": "Rome"}',
            "gen_ai.response.finish_reasons": ["tool_calls"],
        }
    )
    assert [message.text for message in found.asked] == [f"turn {at}" for at in range(12)]
    assert found.answers == (Message("assistant", (CALL,)),)
    assert found.finish_reasons == ("tool_calls",)
    call = "llm.output_messages.0.message.tool_calls.0.tool_call"
    inference = read(
        {
            "llm.model_name": "gpt-4o",
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.contents.0.message_content.type": "text",
            "llm.input_messages.0.message.contents.0.message_content.text": "hi",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": "Hello.",
            f"{call}.id": "call_1",
            f"{call}.function.name": "weather",
            f"{call}.function.arguments": '{"city": "Rome"}',
            "llm.token_count.prompt": 20,
            "llm.token_count.completion": 5,
        }
    )
    assert (inference.question, inference.model, inference.usage) == ("hi", "gpt-4o", Usage(20, 5, 25))
    assert inference.answers == (Message("assistant", (Part("text", "Hello."), CALL)),)


def test_numbered_attributes_stay_as_they_were_recorded() -> None:
    """One that is an object gets nothing of the others."""
    attributes = {"gen_ai.prompt.0": {"role": "user"}, "gen_ai.prompt.0.content": "hi"}
    assert read(attributes).question == "hi"
    assert attributes == {"gen_ai.prompt.0": {"role": "user"}, "gen_ai.prompt.0.content": "hi"}


def test_inputs_and_outputs_come_first() -> None:
    """Where a span has both, its inputs and outputs are read; attributes fill in what they lack."""
    given = {"gen_ai.input.messages": INPUT, "gen_ai.output.messages": OUTPUT}
    found = read_conversation({"messages": [{"role": "user", "content": "first"}]}, None, given)
    assert found is not None
    assert (found.question, found.answer) == ("first", "Sunny.")
    assert read_conversation(None, None, {"gen_ai.request.model": "m"}) is None


def test_the_system_prompt_and_the_reasons_are_apart_from_inputs_and_outputs() -> None:
    """Inputs are the messages alone; a system message among them is the only one."""
    about = {"gen_ai.system_instructions": SYSTEM, "gen_ai.response.finish_reasons": ["stop"]}
    found = read_conversation(INPUT, OUTPUT, about)
    assert found is not None
    assert [message.role for message in found.asked] == ["system", "user", "assistant", "tool", "user"]
    assert found.finish_reasons == ("stop",)
    again = read_conversation([{"role": "system", "content": "Be long."}, *INPUT], OUTPUT, about)
    assert again is not None
    assert [message.role for message in again.asked].count("system") == 1


def test_the_call_that_stands_for_a_trace_has_a_conversation() -> None:
    """A client's own span of the same call has none, and starts later."""

    def call(span_id: str, start: int, inputs: Any = None) -> Span:
        about = {"gen_ai.request.model": "m"}
        return Span("tr-" + "0" * 32, span_id, "root", "call", "LLM", start, attributes=about, inputs=inputs)

    found = conversation_of_call([call("a", 1, INPUT), call("b", 2)])
    assert found is not None
    assert found.asked[0].role == "user"
