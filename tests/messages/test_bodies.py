"""Captured bodies: whole, cut, and as streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wherefrom.messages.bodies import Body, abridged, complete_json, parse_body
from wherefrom.messages.conversation import read_conversation
from wherefrom.messages.parts import read_json

from .clients import events
from .test_shapes import CHAT_STREAM

REQUEST = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": 'Say "hi" \\ \u00e9\n'},
        {"role": "user", "content": [{"type": "text", "text": "long question"}], "name": "ann"},
    ],
    "n": 1.5e3,
    "stream": True,
    "tools": [],
}


@pytest.mark.parametrize(
    "text", [json.dumps(REQUEST), json.dumps(REQUEST, indent=2)], ids=["compact", "indented"]
)
def test_json_that_was_cut_anywhere(text: str) -> None:
    """Wherever it was cut, what stands before the cut is read, and is a part of the whole."""
    assert parse_body(text) == Body(REQUEST)
    for end in range(1, len(text)):
        found = complete_json(text[:end])
        assert isinstance(found, dict), text[:end]
        assert is_beginning(found, REQUEST), text[:end]
    cut = parse_body(text[:-80] + "...")
    assert cut is not None
    assert cut.is_cut


def is_beginning(found: Any, whole: Any) -> bool:
    if isinstance(found, dict):
        return isinstance(whole, dict) and all(
            key in whole and is_beginning(found[key], whole[key]) for key in found
        )
    if isinstance(found, list):
        return isinstance(whole, list) and all(map(is_beginning, found, whole))
    if isinstance(found, str):
        return isinstance(whole, str) and whole.startswith(found)
    return found == whole or isinstance(found, (int, float))  # the number may go on


@pytest.mark.parametrize(
    "text", ["", "]", "[}", "{]", '{"a"', "[" * 600, '{"a": nope', "[1 2", '{"a":"\\u12']
)
def test_what_cannot_be_completed(text: str) -> None:
    """Text that is no beginning of JSON gives nothing, or the part before."""
    assert complete_json(text) in (None, {}, {"a": ""}, [])


def test_a_request_that_was_cut() -> None:
    """The conversation says that it ends early; its last message is what was recorded of it."""
    text = json.dumps(REQUEST)
    found = read_conversation(text[: text.index("uestion")] + "...", None)
    assert found is not None
    assert found.is_request_cut
    assert found.question == "long q"
    earlier = read_conversation('{"messages": [["user", "hi"], ["ai", "Hello."], ...', None)
    assert earlier is not None
    assert earlier.question is None, "the last question may be past the cut"
    whole = read_conversation(json.dumps(REQUEST), None)
    assert whole is not None
    assert not whole.is_request_cut


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_a_stream_with_comments_and_any_ends_of_lines(ends: str) -> None:
    """Comments, ids and several lines of data are as the standard says."""
    text = (
        ": hi\n\nid: 1\nevent: x\ndata: [1,\ndata: 2]\nretry: 5\n\ndata:{}\n\ndata: text\n\ndata: [DONE]\n\n"
    )
    assert parse_body(text.replace("\n", ends)) == Body([[1, 2], {}, "text"])


def test_a_stream_that_was_cut() -> None:
    """The event that is not whole is left out; the answer goes as far as it was recorded."""
    body = events(CHAT_STREAM)
    at = body.index(" look.")
    for end in range(at, at + 9):
        found = read_conversation({"messages": [{"role": "user", "content": "hi"}]}, body[:end] + "...")
        assert found is not None
        assert (found.is_response_cut, found.answer) == (True, "Let me")


def test_streams_that_report_errors() -> None:
    """An error in place of a chunk is a part of the answer."""
    error = {"type": "overloaded_error", "message": "busy"}
    chats = [*CHAT_STREAM[:2], {"error": error}]
    messages = [
        {"type": "message_start", "message": {"content": [], "role": "assistant"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me"}},
        {"type": "error", "error": error},
    ]
    responses = [
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Let me"},
        {"type": "response.refusal.delta", "output_index": 0, "content_index": 1, "delta": "no"},
        {"type": "error", **{key: value for key, value in error.items() if key != "type"}},
    ]
    for stream in (chats, messages, responses):
        found = read_conversation(None, events(stream))
        assert found is not None
        assert str(found.answer).startswith("Let me")
        (data,) = [part.data for part in found.answers[0].parts if part.kind == "data"]
        assert data["error"]["message"] == "busy"


def test_a_failed_response() -> None:
    """A response that failed has its error, and no other answer."""
    failed = {"object": "response", "status": "failed", "output": [], "error": {"code": "server_error"}}
    found = read_conversation(None, events([{"type": "response.failed", "response": failed}]))
    assert found is not None
    assert found.finish_reasons == ("failed",)
    assert found.answers[0].parts[0].data == {"error": {"code": "server_error"}}


def test_objects_on_lines_that_were_cut() -> None:
    """The last line may be cut."""
    line = '{"message":{"role":"assistant","content":"Hel"},"done":false}\n'
    found = read_conversation(None, line + line[:30] + "...")
    assert found is not None
    assert (found.is_response_cut, found.answer) == (True, "Hel")


@pytest.mark.parametrize("ends", ["\r\n", "\r"], ids=["crlf", "cr"])
def test_long_streams_with_other_ends_of_lines(ends: str) -> None:
    """They keep their first and last events too."""
    words = [
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": f"{at} "}}]}
        for at in range(5_000)
    ]
    body = events([*words, *CHAT_STREAM[-2:]]).replace("\n", ends)
    short = abridged(body)
    assert len(short) < len(body) / 3
    found = read_conversation(None, short)
    assert found is not None
    assert found.usage is not None
    assert str(found.answer).startswith("0 1 2 3 ")


def test_no_event_is_kept_twice() -> None:
    """A stream that is little longer than its two ends has each event once."""
    body = events([{"type": "x", "text": "a" * 1_000, "at": at} for at in range(68)])
    found = parse_body(abridged(body))
    assert found is not None
    assert [one["at"] for one in found.value] == list(range(68))


def test_json_that_is_nested_deep_stays_text() -> None:
    """It could not be written into the JSON of a page."""
    deep, shallow = "[" * 200 + "]" * 200, "[" * 100 + "]" * 100
    assert parse_body(deep) is None
    assert complete_json("[" * 200) is None
    assert parse_body(f"data: {deep}\n\ndata: {{}}\n\n") == Body([deep, {}])
    assert read_json(deep) == deep
    assert parse_body(shallow) == Body(json.loads(shallow))
    assert parse_body(json.dumps(["[" * 200])) == Body(["[" * 200])


def test_long_bodies_are_abridged_for_previews() -> None:
    """A stream keeps its first and last events, which hold the beginning of the answer and the usage."""
    first, *_, usage, done = CHAT_STREAM
    words = [
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": f"{at} "}}]}
        for at in range(5_000)
    ]
    body = events([first, *words, usage, done])
    short = abridged(body)
    assert len(short) < len(body) / 3
    found = read_conversation(None, short)
    assert found is not None
    assert found.usage is not None
    assert str(found.answer).startswith("0 1 2 3 ")
    assert abridged(events(words[:3])) == events(words[:3])
    assert abridged("x" * 100_000) == "x" * 65_536 + "..."
    assert abridged({"a": body}) == {"a": body}
