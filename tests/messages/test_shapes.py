"""Conversations are recognised in what real clients send and receive, as bodies and as recorded values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_to_dict,
)
from langchain_core.outputs import ChatGeneration, LLMResult

from wherefrom._capture.values import snapshot
from wherefrom.messages.content import Conversation, Message, Part, Usage, join_results
from wherefrom.messages.conversation import read_conversation

from .clients import PNG, PNG_URL, Exchange, anthropic_messages, gemini, openai_chat, openai_responses


def read(exchange: Exchange) -> Conversation:
    """The conversation, which is the same in the bodies and in the recorded values."""
    found = read_conversation(exchange.request, exchange.response)
    recorded = read_conversation(exchange.arguments, exchange.result)
    assert found is not None
    assert found == recorded
    return found


def said(*texts: str, role: str = "user") -> Message:
    return Message(role, tuple(Part("text", text) for text in texts))


CALL = Part("tool_call", name="weather", id="call_1", arguments={"city": "Rome"})
RESULT = Part("tool_result", id="call_1", parts=(Part("text", "sunny"),))

# OpenAI, chat completions

OPENAI_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 5,
    "total_tokens": 25,
    "prompt_tokens_details": {"cached_tokens": 8},
}


def completion(message: dict[str, Any], reason: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [choice],
        "usage": USAGE,
        **more,
    }


def test_a_chat_completion() -> None:
    """System prompt, turns, a tool call and its result, images, model, finish reason and usage are read."""
    image = {"type": "image_url", "image_url": {"url": PNG_URL}}
    found = read(
        openai_chat(
            completion({"content": "It is **sunny**."}),
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "How is it there?"}, image]},
                {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            ],
        )
    )
    assert found.asked == (
        said("Be brief.", role="system"),
        Message("user", (Part("text", "How is it there?"), Part("image", mime="image/png", size=8))),
        Message("assistant", (CALL,)),
        Message("tool", (RESULT,)),
    )
    assert found.answers == (said("It is **sunny**.", role="assistant"),)
    assert (found.model, found.finish_reasons) == ("gpt-4o-2024-08-06", ("stop",))
    assert found.usage == Usage(20, 5, 25, cache_read_input_tokens=8)
    assert (found.question, found.answer) == ("How is it there?", "It is **sunny**.")
    *_, user, assistant = join_results(found.asked)
    assert user.role == "user"
    assert assistant.parts[0].parts == (RESULT,)


def test_a_refusal_several_choices_audio_and_files() -> None:
    """Each choice is an answer; what is no text is a part of its kind."""
    answer = completion({"content": None, "refusal": "I cannot."}, "content_filter")
    audio = {"id": "a", "data": PNG, "expires_at": 1, "transcript": "Spoken."}
    other = {
        "index": 1,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": None, "audio": audio},
    }
    answer["choices"].append(other)
    files = [
        {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    found = read(openai_chat(answer, messages=[{"role": "user", "content": files}]))
    assert found.asked[0].parts == (
        Part("audio", mime="audio/wav", size=8),
        Part("file", name="a.pdf", mime="application/pdf", size=8),
        Part("image", name="https://example.org/a.png"),
    )
    first, second = found.answers
    assert first.parts == (Part("refusal", "I cannot."),)
    assert second.parts == (Part("audio", name="a", size=8), Part("text", "Spoken."))
    assert found.finish_reasons == ("content_filter", "stop")


def chat_chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": choices,
    } | more


CHAT_STREAM = [
    chat_chunk({"role": "assistant", "content": "", "refusal": None}),
    chat_chunk({"content": "Let me"}),
    chat_chunk({"content": " look."}),
    chat_chunk(
        {"tool_calls": [{"index": 0, **OPENAI_CALL, "function": {"name": "weather", "arguments": ""}}]}
    ),
    chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}),
    chat_chunk(
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "call_2",
                    "type": "function",
                    "function": {"name": "now", "arguments": "{}"},
                }
            ]
        }
    ),
    chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]}),
    chat_chunk({}, "tool_calls"),
    chat_chunk({}, choices=[], usage=USAGE),
    "[DONE]",
]


def test_a_stream_of_a_chat_completion() -> None:
    """Deltas of text and of several calls are put together; the last chunk has the usage."""
    found = read(openai_chat(CHAT_STREAM, messages=[{"role": "user", "content": "hi"}], stream=True))
    now = Part("tool_call", name="now", id="call_2", arguments={})
    assert found.answers == (Message("assistant", (Part("text", "Let me look."), CALL, now)),)
    assert found.finish_reasons == ("tool_calls",)
    assert found.usage == Usage(20, 5, 25, cache_read_input_tokens=8)


# OpenAI, responses

ITEMS: list[dict[str, Any]] = [
    {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Thinking."}]},
    {
        "type": "function_call",
        "id": "f",
        "call_id": "call_1",
        "name": "weather",
        "arguments": '{"city": "Rome"}',
        "status": "completed",
    },
    {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Sunny.", "annotations": []}],
    },
]
RESPONSE: dict[str, Any] = {
    "id": "resp",
    "object": "response",
    "created_at": 1,
    "model": "gpt-4.1",
    "status": "completed",
    "output": ITEMS,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 20,
        "output_tokens": 5,
        "total_tokens": 25,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens_details": {"reasoning_tokens": 2},
    },
}
ANSWER = Message("assistant", (Part("reasoning", "Thinking."), CALL, Part("text", "Sunny.")))


def test_a_response() -> None:
    """Instructions are the system prompt; all items of the output are one answer."""
    given = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "hi"},
                {"type": "input_image", "image_url": PNG_URL, "detail": "auto"},
            ],
        },
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        {"role": "user", "content": [{"type": "input_file", "filename": "a.txt", "file_id": "file-1"}]},
    ]
    found = read(openai_responses(RESPONSE, input=given, instructions="Be brief."))
    assert found.asked == (
        said("Be brief.", role="system"),
        Message("user", (Part("text", "hi"), Part("image", mime="image/png", size=8))),
        Message("assistant", (CALL,)),
        Message("tool", (RESULT,)),
        Message("user", (Part("file", name="a.txt"),)),
    )
    assert found.answers == (ANSWER,)
    assert found.finish_reasons == ("completed",)
    assert found.usage == Usage(20, 5, 25, cache_read_input_tokens=8)
    assert read(openai_responses(RESPONSE, input="hello")).question == "hello"


def response_events(*, ends: bool = True) -> list[dict[str, Any]]:
    begun = RESPONSE | {"status": "in_progress", "output": [], "usage": None}
    reasoning, call, message = ITEMS
    part = {"type": "output_text", "text": "", "annotations": []}
    found: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": reasoning | {"summary": []}},
        {
            "type": "response.reasoning_summary_text.delta",
            "item_id": "r",
            "output_index": 0,
            "summary_index": 0,
            "delta": "Think",
        },
        {
            "type": "response.reasoning_summary_text.delta",
            "item_id": "r",
            "output_index": 0,
            "summary_index": 0,
            "delta": "ing.",
        },
        {"type": "response.output_item.added", "output_index": 1, "item": call | {"arguments": ""}},
        {
            "type": "response.function_call_arguments.delta",
            "item_id": "f",
            "output_index": 1,
            "delta": '{"city": ',
        },
        {
            "type": "response.function_call_arguments.delta",
            "item_id": "f",
            "output_index": 1,
            "delta": '"Rome"}',
        },
        {"type": "response.output_item.done", "output_index": 1, "item": call},
        {"type": "response.output_item.added", "output_index": 2, "item": message | {"content": []}},
        {
            "type": "response.content_part.added",
            "item_id": "m",
            "output_index": 2,
            "content_index": 0,
            "part": part,
        },
        {
            "type": "response.output_text.delta",
            "item_id": "m",
            "output_index": 2,
            "content_index": 0,
            "delta": "Sun",
            "logprobs": [],
        },
        {
            "type": "response.output_text.delta",
            "item_id": "m",
            "output_index": 2,
            "content_index": 0,
            "delta": "ny.",
            "logprobs": [],
        },
    ]
    last = {"type": "response.completed", "response": RESPONSE}
    return [one | {"sequence_number": at} for at, one in enumerate([*found, last] if ends else found)]


@pytest.mark.parametrize("ends", [True, False])
def test_a_stream_of_a_response(ends: bool) -> None:
    """The last event holds the response; of a stream that ends before, the deltas are put together."""
    found = read(openai_responses(response_events(ends=ends), input="hi", stream=True))
    assert found.answers == (ANSWER,)
    assert (found.usage is not None) is ends


# Anthropic


def test_streams_stay_as_they_were_recorded() -> None:
    """Reading adds nothing to the chunks."""
    delta = {"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": "Hm."}
    done = {"type": "reasoning", "summary": [{"type": "summary_text", "index": 0, "text": ""}]}
    streams: list[list[dict[str, Any]]] = [
        [{"type": "response.output_item.added", "item": {"type": "reasoning", "summary": []}}, delta, delta],
        [{"type": "response.output_item.done", "item": done}, delta, delta],
        [
            {"type": "content_block_start", "content_block": {"type": "x", "citation": {}, "all": []}},
            {"type": "content_block_delta", "delta": {"citation": {"a": 1}, "all": [1]}},
        ],
        [chat_chunk({"tool_calls": [{"index": 1.0, "id": "a"}]}), chat_chunk({"tool_calls": [{"index": 1}]})],
    ]
    for stream in streams:
        before = json.dumps(stream)
        assert read_conversation(None, stream) is not None
        assert json.dumps(stream) == before


def message(*content: dict[str, Any], reason: str | None = "end_turn") -> dict[str, Any]:
    usage = {
        "input_tokens": 7,
        "output_tokens": 5,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 3,
    }
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": list(content),
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": usage,
    }


TOOL_USE = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}}
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}


def test_an_anthropic_message() -> None:
    """The system prompt stands beside the messages; results of tools are no messages of the user."""
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    found = read(
        anthropic_messages(
            message(THINKING, {"type": "text", "text": "Sunny."}),
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "hi"},
                        {"type": "image", "source": source},
                        {
                            "type": "document",
                            "title": "a",
                            "source": {"type": "text", "media_type": "text/plain", "data": "doc"},
                        },
                    ],
                },
                {"role": "assistant", "content": [TOOL_USE]},
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}],
                },
            ],
        )
    )
    document = Part("file", "doc", name="a", mime="text/plain", size=3)
    assert found.asked == (
        said("Be brief.", role="system"),
        Message("user", (Part("text", "hi"), Part("image", mime="image/png", size=8), document)),
        Message("assistant", (CALL,)),
        Message("tool", (RESULT,)),
    )
    assert found.question == "hi"
    assert found.answers[0].parts == (Part("reasoning", "Hm."), Part("text", "Sunny."))
    assert found.finish_reasons == ("end_turn",)
    assert found.usage == Usage(20, 5, 25, 10, 3), "tokens of the cache are input too"


def test_a_stream_of_an_anthropic_message() -> None:
    """Blocks are put together by their index, calls from pieces of JSON; usage comes at both ends."""
    start = message(reason=None)
    events = [
        {"type": "message_start", "message": start | {"usage": start["usage"] | {"output_tokens": 1}}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "signature_delta", "signature": "c2ln"},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Sun"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ny."}},
        {"type": "content_block_start", "index": 2, "content_block": TOOL_USE | {"input": {}}},
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": '{"city":'},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": ' "Rome"}'},
        },
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
    found = read(anthropic_messages(events, messages=[{"role": "user", "content": "hi"}], stream=True))
    assert found.answers == (Message("assistant", (Part("reasoning", "Hm."), Part("text", "Sunny."), CALL)),)
    assert found.finish_reasons == ("tool_use",)
    assert found.usage == Usage(20, 5, 25, 10, 3)
    assert found.model == "claude-sonnet-5"


# Gemini


def candidate(*parts: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    return {
        "candidates": [found | ({"finishReason": reason} if reason else {})],
        "modelVersion": "gemini-2.5-flash",
    }


GEMINI_USAGE = {
    "promptTokenCount": 20,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 2,
    "totalTokenCount": 25,
    "cachedContentTokenCount": 8,
}


def test_gemini_contents() -> None:
    """Parts say what they are by their key; calls without ids meet their results by name."""
    inline = {"inline_data": {"mime_type": "image/png", "data": PNG}}
    file = {"file_data": {"file_uri": "gs://a.pdf", "mime_type": "application/pdf"}}
    found = read(
        gemini(
            candidate({"text": "Hm.", "thought": True}, {"text": "Sunny."}, reason="STOP")
            | {"usageMetadata": GEMINI_USAGE},
            contents=[
                {"role": "user", "parts": [{"text": "hi"}, inline, file]},
                {
                    "role": "model",
                    "parts": [{"function_call": {"name": "weather", "args": {"city": "Rome"}}}],
                },
                {
                    "role": "user",
                    "parts": [{"function_response": {"name": "weather", "response": {"sky": "clear"}}}],
                },
            ],
            config={"system_instruction": "Be brief."},
        )
    )
    call = Part("tool_call", name="weather", arguments={"city": "Rome"})
    result = Part("tool_result", name="weather", parts=(Part("data", data={"sky": "clear"}),))
    pdf = Part("file", name="gs://a.pdf", mime="application/pdf")
    assert found.asked == (
        said("Be brief.", role="system"),
        Message("user", (Part("text", "hi"), Part("image", mime="image/png", size=8), pdf)),
        Message("assistant", (call,)),
        Message("tool", (result,)),
    )
    assert join_results(found.asked)[-1].parts[0].parts == (result,)
    assert found.answers == (Message("assistant", (Part("reasoning", "Hm."), Part("text", "Sunny."))),)
    assert (found.model, found.finish_reasons) == ("gemini-2.5-flash", ("STOP",))
    assert found.usage == Usage(20, 5, 25, cache_read_input_tokens=8)


def test_a_stream_of_gemini() -> None:
    """Text of adjacent parts is joined, thoughts apart from the answer."""
    chunks = [
        candidate({"text": "H", "thought": True}),
        candidate({"text": "m.", "thought": True}),
        candidate({"text": "Sun"}),
        candidate({"text": "ny."}, {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}),
        candidate({"text": ""}, reason="STOP") | {"usageMetadata": GEMINI_USAGE},
    ]
    found = read(gemini(chunks, contents="hi"))
    assert found.asked == (said("hi"),)
    kinds = [(part.kind, part.text) for part in found.answers[0].parts]
    assert kinds[:3] == [("reasoning", "Hm."), ("text", "Sunny."), ("tool_call", None)]
    assert (found.finish_reasons, found.usage) == (("STOP",), Usage(20, 5, 25, cache_read_input_tokens=8))


def test_parts_of_a_single_gemini_message() -> None:
    """A list of texts and files is one message, as the client sends it."""
    found = read(
        gemini(
            candidate({"text": "A cat."}),
            contents=["What is it?", {"inline_data": {"mime_type": "image/png", "data": PNG}}],
        )
    )
    assert found.asked == (
        Message("user", (Part("text", "What is it?"), Part("image", mime="image/png", size=8))),
    )


# LangChain

ANSWERED = AIMessage(
    "Sunny.",
    usage_metadata={
        "input_tokens": 20,
        "output_tokens": 5,
        "total_tokens": 25,
        "input_token_details": {"cache_read": 8},
    },
    response_metadata={"model_name": "gpt-4o", "finish_reason": "stop"},
)
TURNS = [
    SystemMessage("Be brief."),
    HumanMessage(
        [{"type": "text", "text": "hi"}, {"type": "image", "base64": PNG, "mime_type": "image/png"}]
    ),
    AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Rome"}, "id": "call_1"}]),
    ToolMessage("sunny", tool_call_id="call_1"),
]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (snapshot({"messages": TURNS}), snapshot(ANSWERED)),
        (
            snapshot({"messages": [TURNS]}),
            snapshot(LLMResult(generations=[[ChatGeneration(message=ANSWERED)]])),
        ),
        (dumpd(TURNS), dumpd(ANSWERED)),
        (messages_to_dict(TURNS), messages_to_dict([ANSWERED])[0]),
        (snapshot({"state": {"messages": TURNS}}), snapshot({"messages": [*TURNS, ANSWERED]})),
        (snapshot({"input": TURNS}), {"generations": [[{"text": "Sunny.", "message": dumpd(ANSWERED)}]]}),
    ],
    ids=["recorded", "batch", "constructors", "typed", "whole conversation", "result"],
)
def test_langchain_messages(inputs: Any, outputs: Any) -> None:
    """However LangChain's messages were written: the answer is what is new in the outputs."""
    found = read_conversation(inputs, outputs)
    assert found is not None
    assert found.asked == (
        said("Be brief.", role="system"),
        Message("user", (Part("text", "hi"), Part("image", mime="image/png", size=8))),
        Message("assistant", (CALL,)),
        Message("tool", (RESULT,)),
    )
    assert found.answers == (said("Sunny.", role="assistant"),)


def test_what_langchain_says_about_the_response() -> None:
    """Model, finish reason and usage are in the message."""
    found = read_conversation(snapshot({"messages": TURNS}), snapshot(ANSWERED))
    assert found is not None
    assert (found.model, found.finish_reasons) == ("gpt-4o", ("stop",))
    assert found.usage == Usage(20, 5, 25, cache_read_input_tokens=8)


def test_chunks_of_langchain() -> None:
    """Chunks of text, of calls and of usage are added up, as LangChain adds them."""
    chunks = [
        AIMessageChunk(content="Sun"),
        AIMessageChunk(
            content="ny.",
            tool_call_chunks=[{"name": "weather", "args": '{"city": ', "id": "call_1", "index": 0}],
        ),
        AIMessageChunk(
            content="", tool_call_chunks=[{"name": None, "args": '"Rome"}', "id": None, "index": 0}]
        ),
        AIMessageChunk(
            content="", usage_metadata={"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
        ),
    ]
    found = read_conversation(snapshot({"messages": TURNS}), snapshot(chunks))
    assert found is not None
    assert found.answers == (Message("assistant", (Part("text", "Sunny."), CALL)),)
    assert found.usage == Usage(20, 5, 25)


# Plain messages, and what is no conversation

OLLAMA = (
    '{"message":{"role":"assistant","content":"Hel"},"done":false}\n'
    '{"message":{"role":"assistant","content":"lo."},"done":true,"done_reason":"stop"}\n'
)


@pytest.mark.parametrize(
    ("inputs", "outputs", "asked", "answer"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, "Hello.", "hi", "Hello."),
        ({"messages": [["system", "x"], ["human", "hi"]]}, ["Hel", "lo."], "hi", "Hello."),
        ([{"role": "user", "content": "hi"}], {"role": "assistant", "content": "Hello."}, "hi", "Hello."),
        (
            {"request": {"body": {"messages": [{"role": "user", "content": "hi"}]}}},
            {"reply": "Hello."},
            "hi",
            "Hello.",
        ),
        ({"question": "hi"}, {"choices": [{"message": {"content": "Hello."}}]}, "hi", "Hello."),
        ({"model": "m", "prompt": "hi"}, {"choices": [{"text": "Hello.", "index": 0}]}, "hi", "Hello."),
        (
            {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
            OLLAMA,
            "hi",
            "Hello.",
        ),
        (
            {"messages": [{"role": "user", "content": "hi"}]},
            'data: {"delta": "Hel"}\n\ndata: lo.\n\n',
            "hi",
            "Hello.",
        ),
    ],
    ids=["text", "pairs", "list", "nested", "question", "completion", "ollama", "own stream"],
)
def test_plain_messages(inputs: Any, outputs: Any, asked: str, answer: str) -> None:
    """Any list of roles and contents is a conversation; the other half may be anything."""
    found = read_conversation(inputs, outputs)
    assert found is not None
    assert (found.question, found.answer) == (asked, answer)


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "",
        "hello",
        "{}",
        "[]",
        "data",
        "data:",
        "...",
        "{...",
        {},
        [],
        [[]],
        [None],
        {"messages": []},
        {"messages": "hi"},
        {"messages": [1]},
        {"content": "hi"},
        {"role": "user"},
        {"role": 5, "content": "x"},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}]},
        {"candidates": []},
        {"candidates": [1]},
        {"output": []},
        {"output": [{"a": 1}]},
        {"input": "hi"},
        {"generations": [[{}]]},
        {"generations": [[1]]},
        {"generations": []},
        {"contents": 5},
        {"prompt": "hi"},
        {"message": "hi"},
        {"type": "tool", "name": "x", "content": "y"},
        ["a", "b"],
        [{"text": "a"}],
        {"orders": [{"id": 1}]},
        "data: [DONE]\n\n",
        'data: {"price": 1}\n\ndata: {"price": 2}\n\n',
        '{"a": 1}\n{"a": 2}\n',
        '{"a": 1}\nno',
    ],
    ids=repr,
)
def test_what_is_no_conversation(value: Any) -> None:
    """Other JSON, text and streams are none, on either side."""
    assert read_conversation(value, {"id": 1}) is None
    assert read_conversation({"id": 1}, value) is None


def test_what_is_unknown_stays() -> None:
    """Blocks, roles, calls and items that nobody knows are parts of kind ``data``, or keep their names."""
    block = {"type": "hologram", "url": "needle"}
    messages = [
        {"role": "critic", "content": [block, 5]},
        {"role": "user", "content": {"a": 1}},
        {"no": "message"},
        {"role": "assistant", "tool_calls": ["odd"]},
    ]
    found = read_conversation(
        {"messages": messages}, {"object": "response", "output": [block], "error": {"code": 1}}
    )
    assert found is not None
    critic, user, other, calls = found.asked
    assert critic == Message("critic", (Part("data", data=block), Part("data", data=5)))
    assert user.parts == (Part("data", data={"a": 1}),)
    assert other.parts == (Part("data", data={"no": "message"}),)
    assert calls.parts == (Part("data", data="odd"),)
    assert found.answers[0].parts == (Part("data", data=block), Part("data", data={"error": {"code": 1}}))
    other_half = read_conversation({"a": 1, "b": 2}, {"role": "assistant", "content": "x"})
    assert other_half is not None
    assert other_half.asked[0].parts == (Part("data", data={"a": 1, "b": 2}),)


def test_calls_of_tools_that_the_provider_runs() -> None:
    """They are calls with their results; a result without a call stays a message."""
    output = [
        {"type": "web_search_call", "id": "w", "status": "completed", "action": {"query": "Rome"}},
        {
            "type": "mcp_call",
            "id": "m",
            "name": "find",
            "arguments": "{}",
            "output": "found",
            "server_label": "s",
        },
        {"type": "mcp_call", "id": "n", "name": "find", "arguments": "not json", "error": "gone"},
    ]
    found = read_conversation(
        {"messages": [{"role": "tool", "tool_call_id": "lost", "content": "late"}]}, {"output": output}
    )
    assert found is not None
    search, done, failed = found.answers[0].parts
    assert (search.name, search.arguments) == ("web_search_call", {"action": {"query": "Rome"}})
    assert done.parts == (Part("tool_result", parts=(Part("text", "found"),)),)
    assert failed.arguments == "not json"
    assert failed.parts[0].is_error
    assert join_results(found.asked) == found.asked
    assert found.answer == 'web_search_call(action={"query":"Rome"})\nfind()\nfind(not json)'


def test_anthropic_tools_of_the_server_and_older_functions() -> None:
    """``server_tool_use`` and its result, OpenAI's ``function_call`` and role ``function``."""
    content = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "Rome"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s",
            "content": [{"type": "web_search_result", "url": "u"}],
        },
        {"type": "redacted_thinking", "data": PNG},
    ]
    older = [
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
        {"role": "function", "name": "weather", "content": '{"sky": "clear"}'},
    ]
    found = read_conversation(
        {"messages": older}, {"type": "message", "role": "assistant", "content": content}
    )
    assert found is not None
    call, result, thinking = found.answers[0].parts
    assert (call.name, result.id, thinking) == ("web_search", "s", Part("reasoning", "", size=8))
    assert join_results(found.answers)[0].parts[0].parts == (result,)
    (joined,) = join_results(found.asked)
    assert joined.parts[0].parts[0].parts == (Part("text", '{"sky": "clear"}'),)


def test_blocked_prompts_of_gemini() -> None:
    """A response without candidates says why."""
    found = read_conversation(
        {"contents": {"parts": [{"text": "hi"}]}},
        {"promptFeedback": {"blockReason": "SAFETY"}, "candidates": []},
    )
    assert found is not None
    assert found.question == "hi"
    assert found.answers[0].parts[0].data == {"prompt_feedback": {"blockReason": "SAFETY"}}


def test_code_that_gemini_runs() -> None:
    """Code and its output are a call and its result."""
    parts = [
        {"executableCode": {"code": "1 + 1", "language": "PYTHON"}},
        {"codeExecutionResult": {"output": "2", "outcome": "OUTCOME_OK"}},
    ]
    found = read_conversation(None, {"candidates": [{"content": {"parts": parts}}]})
    assert found is not None
    (message,) = join_results(found.answers)
    assert json.dumps(message.parts[0].arguments) == '"1 + 1"'
    assert message.parts[0].parts[0].parts == (Part("text", "2"),)
