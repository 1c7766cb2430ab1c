"""Streams of deltas, put together to the response that they add up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

Chunk = Mapping[str, Any]
_FEW: Final = 5  # a stream may begin with events of the app


def assemble(chunks: Sequence[Any]) -> Chunk | None:
    """The response that the chunks of a stream add up to, in the shape of one that is not streamed.

    ``None`` if they are no chunks of a stream that is known.
    """
    events = [chunk for chunk in chunks if isinstance(chunk, dict)]
    for is_one, put_together in _STREAMS:
        if any(is_one(event) for event in events[:_FEW]):
            return put_together(events)
    return None


def assemble_text(chunks: Sequence[Any]) -> str | None:
    """The text of a stream of an app's own: texts, or objects with a text ``delta``, ``token`` or the like.

    ``None`` if most chunks are something else.
    """
    texts = [text for chunk in chunks if (text := _plain_text(chunk)) is not None]
    return "".join(texts) if texts and len(texts) * 2 >= len(chunks) else None


class _Pieces(list[str]):
    """Text in pieces: adding to a string takes longer the longer it is."""


class _Items(list[Any]):
    """Items of deltas; those with the same ``index`` are one object."""

    def __init__(self, items: Sequence[Any] = ()) -> None:
        super().__init__(items)
        self._slots = {at: item for item in items if (at := _slot_of(item)) is not None}

    def merge(self, items: Sequence[Any]) -> None:
        for item in items:
            at = _slot_of(item)
            if at is None:
                self.append(item)
                continue
            if at not in self._slots:
                self._slots[at] = {}
                self.append(self._slots[at])
            _merge(self._slots[at], item)


def _slot_of(item: Any) -> int | None:
    at = item.get("index") if isinstance(item, dict) else None
    return at if isinstance(at, int) else None


_TEXTS: Final = frozenset(
    {"content", "arguments", "reasoning_content", "reasoning", "refusal", "text", "transcript", "thinking"}
    | {"partial_json", "args", "data", "input", "signature"}
)


def _merge(into: dict[str, Any], delta: Chunk) -> None:
    """Add a delta: text is appended, lists are merged by ``index``, the rest is replaced."""
    for key, value in delta.items():
        known = into.get(key)
        if value is None or (value == "" and known is not None):
            continue
        if isinstance(value, str) and key in _TEXTS:
            if not isinstance(known, _Pieces):
                known = into[key] = _Pieces()
            known.append(value)
        elif isinstance(value, dict):
            if not isinstance(known, dict):
                known = into[key] = {}
            _merge(known, value)
        elif isinstance(value, list):
            if not isinstance(known, _Items):
                is_plain = isinstance(known, list) and not isinstance(known, _Pieces)
                known = into[key] = _Items(known if is_plain and known else ())
            known.merge(value)
        else:
            into[key] = value


def _joined(value: Any) -> Any:
    """A copy of a value, with its texts in one piece."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {key: _joined(item) for key, item in value.items()}
    return [_joined(item) for item in value] if isinstance(value, list) else value


def _is_chat(event: Chunk) -> bool:
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return event.get("object") == "chat.completion.chunk" or (isinstance(first, dict) and "delta" in first)


def _chat(events: Sequence[Chunk]) -> Chunk:
    choices: dict[int, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    for event in events:
        for choice in _dicts(event.get("choices")):
            slot = choices.setdefault(_index(choice), {"message": {"role": "assistant"}})
            if isinstance(delta := choice.get("delta"), dict):
                _merge(slot["message"], delta)
            if choice.get("finish_reason"):
                slot["finish_reason"] = choice["finish_reason"]
        for key in ("model", "usage"):
            if event.get(key):
                whole[key] = event[key]
        if event.get("error"):
            _add_error(event["error"], choices.setdefault(0, {"message": {"role": "assistant"}})["message"])
    return {**whole, "choices": [_joined(choices[at]) for at in sorted(choices)]}


def _add_error(error: Any, message: dict[str, Any]) -> None:
    """Add an error to the content, after what was said."""
    content = message.get("content")
    said = [{"type": "text", "text": "".join(content)}] if isinstance(content, _Pieces) else []
    message["content"] = [*said, {"error": error}]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _index(event: Chunk, name: str = "index") -> int:
    value = event.get(name)
    return value if isinstance(value, int) else 0


def _kind(event: Chunk) -> str:
    kind = event.get("type")
    return kind if isinstance(kind, str) else ""


def _responses(events: Sequence[Chunk]) -> Chunk:
    whole: dict[str, Any] = {"object": "response"}
    items: dict[int, dict[str, Any]] = {}
    for event in events:
        kind = _kind(event)
        if isinstance(response := event.get("response"), dict):
            whole |= response
            if kind in {"response.completed", "response.incomplete", "response.failed"} and whole.get(
                "output"
            ):
                return whole
            continue
        at = _index(event, "output_index")
        item = event.get("item")
        if isinstance(item, dict):
            is_empty = item.get("type") == "message" and not kind.endswith(".done")
            items[at] = _joined({**item, "content": []} if is_empty else item)
        elif kind.endswith(".delta") and isinstance(event.get("delta"), str):
            _add_to_item(items.setdefault(at, {"type": "message", "role": "assistant", "content": []}), event)
        elif kind == "error":
            items[len(items)] = {"error": {key: event[key] for key in event if key != "type"}}
    return {**whole, "output": [_joined(items[at]) for at in sorted(items)]}


def _add_to_item(item: dict[str, Any], event: Chunk) -> None:
    kind = _kind(event)
    if kind.endswith(("arguments.delta", "call_input.delta", "_input.delta", "_code.delta")):
        name = "arguments" if "arguments" in kind else "input"
        _merge(item, {name: event["delta"]})
        return
    block = {"type": "output_text", "text": event["delta"]}
    names = "content", "content_index"
    if "refusal" in kind:
        block = {"type": "refusal", "refusal": event["delta"]}
    elif "reasoning_summary" in kind:
        block, names = {"type": "summary_text", "text": event["delta"]}, ("summary", "summary_index")
    _merge(item, {names[0]: [{**block, "index": _index(event, names[1])}]})


def _is_anthropic(event: Chunk) -> bool:
    return _kind(event) in {"message_start", "content_block_start", "content_block_delta", "message_delta"}


def _anthropic(events: Sequence[Chunk]) -> Chunk:
    whole: dict[str, Any] = {"type": "message", "role": "assistant"}
    blocks: dict[int, dict[str, Any]] = {}
    for event in events:
        kind, at, delta = _kind(event), _index(event), event.get("delta")
        if kind == "message_start" and isinstance(event.get("message"), dict):
            whole |= event["message"]
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            block = _joined(event["content_block"])
            if isinstance(text := block.get("text"), str):
                block["text"] = _Pieces([text])
            blocks[at] = block
        elif kind == "content_block_delta" and isinstance(delta, dict):
            _add_to_block(blocks.setdefault(at, {"type": "text"}), delta)
        elif kind == "message_delta":
            whole |= {key: item for key, item in (delta if isinstance(delta, dict) else {}).items() if item}
            known = whole.get("usage")
            counts = event.get("usage")
            if isinstance(counts, dict):
                counts = {key: item for key, item in counts.items() if item is not None}
                whole["usage"] = {**(known if isinstance(known, dict) else {}), **counts}
        elif kind == "error":
            blocks[len(blocks)] = {"error": event.get("error")}
    return {**whole, "content": [_joined(blocks[at]) for at in sorted(blocks)]}


def _add_to_block(block: dict[str, Any], delta: Chunk) -> None:
    given = {key: item for key, item in delta.items() if key != "type"}
    if "partial_json" in given:
        if not isinstance(block.get("input"), (_Pieces, list)):
            block["input"] = _Pieces()
        given = {"input": given["partial_json"]}
    for key in ("text", "thinking", "signature"):
        if isinstance(block.get(key), str) and not isinstance(block[key], _Pieces):
            block[key] = _Pieces([block[key]])
    _merge(block, given)


def _gemini(events: Sequence[Chunk]) -> Chunk:
    whole: dict[str, Any] = {}
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        whole |= {key: item for key, item in event.items() if item is not None and key != "candidates"}
        for one in _dicts(event.get("candidates")):
            slot = found.setdefault(_index(one), {"content": {"role": "model", "parts": []}})
            slot |= {key: item for key, item in one.items() if item is not None and key != "content"}
            content = one.get("content")
            for part in _dicts(content.get("parts") if isinstance(content, dict) else None):
                _add_part(slot["content"]["parts"], part)
    return {**whole, "candidates": [_joined(found[at]) for at in sorted(found)]}


def _add_part(parts: list[Any], part: Chunk) -> None:
    """Append text to the part before, if both are thoughts or neither is."""
    given = {key: item for key, item in part.items() if item is not None}
    text, last = given.get("text"), parts[-1] if parts else {}
    is_like_last = bool(last.get("thought")) == bool(given.get("thought"))
    if isinstance(text, str) and isinstance(last.get("text"), _Pieces) and is_like_last:
        last["text"].append(text)
    else:
        parts.append({**given, "text": _Pieces([text])} if isinstance(text, str) else given)


def _langchain(events: Sequence[Chunk]) -> Chunk:
    """Chunks of a message of LangChain's: content is text or a list of blocks with an index."""
    whole: dict[str, Any] = {"type": "ai"}
    calls = _Items()
    for event in events:
        rest = {key: item for key, item in event.items() if key not in _ADDED_UP}
        calls.merge(_dicts(rest.pop("tool_call_chunks", None)))
        counts, known = rest.pop("usage_metadata", None), whole.get("usage_metadata")
        if isinstance(counts, dict):
            before = known if isinstance(known, dict) else {}
            whole["usage_metadata"] = {key: _sum(before.get(key), item) for key, item in counts.items()}
        _merge(whole, {key: item for key, item in rest.items() if item not in ("", [], {})})
    return {"content": "", **_joined(whole), "tool_calls": _joined(calls)}


_ADDED_UP: Final = frozenset({"type", "id", "tool_calls", "invalid_tool_calls"})


def _sum(known: Any, more: Any) -> Any:
    return known + more if isinstance(known, (int, float)) and isinstance(more, (int, float)) else more


def _ollama(events: Sequence[Chunk]) -> Chunk:
    whole: dict[str, Any] = {}
    for event in events:
        _merge(whole, {key: item for key, item in event.items() if key != "done"})
    found: Chunk = _joined(whole)
    return found


def _plain_text(chunk: Any) -> str | None:
    if isinstance(chunk, str):
        return chunk
    if not isinstance(chunk, dict) or "role" in chunk:
        return None
    return next(
        (chunk[name] for name in ("delta", "token", "text", "content") if isinstance(chunk.get(name), str)),
        None,
    )


_STREAMS: Final[Sequence[tuple[Callable[[Chunk], bool], Callable[[Sequence[Chunk]], Chunk]]]] = (
    (_is_chat, _chat),
    (lambda event: _kind(event).startswith("response."), _responses),
    (_is_anthropic, _anthropic),
    (lambda event: isinstance(event.get("candidates"), list), _gemini),
    (lambda event: _kind(event) == "AIMessageChunk", _langchain),
    (lambda event: isinstance(event.get("message"), dict) and isinstance(event.get("done"), bool), _ollama),
)
