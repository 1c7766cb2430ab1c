"""Traces as records of datasets, checked by the types of the packages that take them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from wherefrom import keys
from wherefrom._records import DatasetFormat
from wherefrom.analysis.datasets import UnsuitableTraceError, make_lines, make_record
from wherefrom.model import Assessment, Trace
from wherefrom.model.assessment import AssessmentError, AssessmentKind

from ..web.samples import make_trace

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SYSTEM, USER = {"role": "system", "content": "be brief"}, {"role": "user", "content": "and Rome?"}
CALLED = [SYSTEM, USER, {"role": "assistant", "tool_calls": [CALL]}]
RESULT = {"role": "tool", "tool_call_id": "c1", "content": '{"sky": "clear"}'}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Clear."}}]}


def chat(inputs: Any, outputs: Any = ANSWER, **changes: Any) -> Trace:
    trace = make_trace(1, **changes)
    trace.data.spans[0].inputs, trace.data.spans[0].outputs = inputs, outputs
    return trace


def openai_messages(trace: Trace) -> list[dict[str, Any]]:
    """The messages of the record, which openai's types accept as they are."""
    from openai.types.chat import ChatCompletionMessageParam

    (line,) = make_lines([trace], DatasetFormat.OPENAI, pytest.fail)
    messages: list[dict[str, Any]] = orjson.loads(line)["messages"]
    accepted = TypeAdapter(list[ChatCompletionMessageParam]).validate_python(messages)
    assert [one["role"] for one in accepted] == [one["role"] for one in messages]
    return messages


def test_a_chat_is_for_fine_tuning_what_it_was() -> None:
    """With calls, their results, the tools, and the answer as the last message."""
    trace = chat({"model": "gpt-4o", "messages": [*CALLED, RESULT], "tools": [TOOL, {"type": "web_search"}]})
    assert openai_messages(trace) == [
        SYSTEM,
        USER,
        {"role": "assistant", "content": None, "tool_calls": [
            {**CALL, "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
        ]},
        RESULT,
        {"role": "assistant", "content": "Clear."},
    ]  # fmt: skip
    assert make_record(trace, DatasetFormat.OPENAI)["tools"] == [TOOL]


def test_other_shapes_become_the_same() -> None:
    """Anthropic's blocks, items of the Responses API, calls without ids, images by address, refusals."""
    anthropic = chat(
        {"system": "be brief", "messages": [USER]},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Clear."}],
        },
    )
    assert openai_messages(anthropic) == [SYSTEM, USER, {"role": "assistant", "content": "Clear."}]
    items = chat(
        {"model": "gpt-4o", "instructions": "be brief", "input": [
            USER,
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "clear"},
        ]},
        {"object": "response", "output": [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Clear."}]}
        ]},
    )  # fmt: skip
    assert [one["role"] for one in openai_messages(items)] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    contents = {"contents": [{"role": "user", "parts": [{"text": "and Rome?"}]}]}
    called = {
        "candidates": [
            {"content": {"parts": [{"functionCall": {"name": "weather", "args": {"city": "Rome"}}}]}}
        ]
    }
    (call,) = openai_messages(chat(contents, called))[-1]["tool_calls"]
    assert (call["id"], call["function"]) == ("call_1_0", {"name": "weather", "arguments": '{"city":"Rome"}'})
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    seen = chat({"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, image]}]})
    assert openai_messages(seen)[0]["content"] == [{"type": "text", "text": "what?"}, image]
    refused = chat({"messages": [USER]}, {"choices": [{"message": {"role": "assistant", "refusal": "no"}}]})
    assert openai_messages(refused)[-1] == {"role": "assistant", "content": None, "refusal": "no"}


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ({"q": 1}, {"a": 2}, "without a conversation"),
        ({"messages": [USER]}, None, "without a question or without an answer"),
        ({"messages": [SYSTEM]}, ANSWER, "without a question or without an answer"),
        ({"messages": CALLED}, ANSWER, "with a tool call whose result was not recorded"),
        ({"messages": [USER, RESULT]}, ANSWER, "with a tool result whose call was not recorded"),
        ({"messages": [USER, {"role": "critic", "content": "x"}]}, ANSWER, "other roles"),
        ({"messages": [USER]}, {"choices": [{"message": {"role": "assistant"}}]}, "empty message"),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
            ]}]},
            ANSWER,
            "without their address",
        ),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "tool_result", "tool_use_id": "gone", "content": "clear"},
            ]}]},
            ANSWER,
            "neither text nor image",
        ),
        ({"messages": [USER], "tools": [{**TOOL, "maximum": 2**70}]}, ANSWER, "numbers that are too large"),
        ('{"messages": [{"role": "user", "content": "cut in the mid...', ANSWER, "only a part was recorded"),
    ],
)  # fmt: skip
def test_what_makes_no_record_says_why(inputs: Any, outputs: Any, reason: str) -> None:
    reasons: list[str] = []
    assert not list(make_lines([chat(inputs, outputs)], DatasetFormat.OPENAI, reasons.append))
    assert len(reasons) == 1
    assert reason in reasons[0]


def assessed(name: str, value: Any, **changes: Any) -> Assessment:
    return Assessment(trace_id=f"tr-{1:032x}", name=name, value=value, **changes)


def test_a_record_for_evaluation_has_feedback_and_metadata() -> None:
    """As mlflow's own record takes it: expectations as values, feedback among the tags."""
    from mlflow.entities.dataset_record import DatasetRecord
    from mlflow.entities.dataset_record_source import DatasetRecordSource

    trace = chat({"messages": [SYSTEM, USER]}, metadata={"tier": "gold"}, tags={"team": "chat"})
    trace.info.assessments = [
        assessed("helpful", True),
        assessed("relevance", 0.5, valid=False),
        assessed("judged", None, error=AssessmentError("TIMEOUT")),
        assessed("expected_response", "Sunny.", kind=AssessmentKind.EXPECTATION),
    ]
    record = make_record(trace, DatasetFormat.MLFLOW)
    source = DatasetRecordSource.from_dict(record.pop("source"))
    whole = DatasetRecord("d-1", record.pop("inputs"), "dr-1", 1, 1, source=source, **record)
    back = DatasetRecord.from_proto(whole.to_proto())
    assert back == whole
    assert back.inputs == {"messages": [SYSTEM, USER]}
    assert back.outputs == {"messages": [{"role": "assistant", "content": "Clear."}]}
    assert back.expectations == {"expected_response": "Sunny."}
    assert (back.source_type, back.source_id) == ("TRACE", trace.info.trace_id)
    assert back.tags is not None
    assert all(isinstance(value, str) for value in back.tags.values())
    wanted = {"feedback.helpful": "true", "tier": "gold", "team": "chat", keys.APP_VERSION: "1.1.0"}
    assert back.tags.items() >= wanted.items()
    assert not {"feedback.relevance", "feedback.judged"} & back.tags.keys()


def test_a_trace_without_a_conversation_is_evaluated_by_its_inputs_and_outputs() -> None:
    record = make_record(chat({"q": 1}, [2]), DatasetFormat.MLFLOW)
    assert (record["inputs"], record["outputs"]) == ({"q": 1}, [2])
    with pytest.raises(UnsuitableTraceError, match="without inputs and outputs"):
        make_record(make_trace(1), DatasetFormat.MLFLOW)
