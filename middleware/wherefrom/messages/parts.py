"""Reads the content of messages: the blocks of OpenAI, Anthropic, Gemini, LangChain and OpenTelemetry.

Their types do not contradict one another, so one table serves them all. What the table does not know stays as
JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from .bodies import load_json
from .content import MEDIA, Part

_DEEPEST: Final = 8
MAX_ADDRESS: Final = 300
"""Characters of an address that are kept."""
_BASE64: Final = "base64,"
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_=\s-]*")
_HEAD: Final = 64

Block = Mapping[str, Any]


def read_content(value: Any, depth: int = 0) -> Iterator[Part]:
    """The parts of any content: text, a block, or a list of them; what is nested deeper stays data."""
    if isinstance(value, str):
        if value:
            yield Part("text", value)
    elif isinstance(value, list) and depth < _DEEPEST:
        for item in value:
            yield from read_content(item, depth + 1)
    elif isinstance(value, dict) and value and depth < _DEEPEST:
        yield read_block(value, depth)
    elif value is not None and value != {}:
        yield Part("data", data=value)


def read_block(value: Block, depth: int = 0) -> Part:
    """The part that one block is."""
    block = {key: item for key, item in value.items() if item is not None}
    kind = block.get("type")
    if not isinstance(kind, str):
        part = _of_gemini(block, depth)
    elif kind in _READERS:
        part = _READERS[kind](block, depth)
    elif kind.endswith(("_call_output", "_tool_result")):
        part = _result(block, depth)
    elif kind.endswith(("_call", "_tool_use")):
        part = _call(block, depth)
    else:
        part = None
    return Part("data", data=value) if part is None else part


def read_json(text: Any) -> Any:
    """An object or list that is written as JSON text; any other value, and very deep JSON, as it is."""
    if isinstance(text, str) and text.lstrip()[:1] in {"{", "["}:
        try:
            return load_json(text)
        except ValueError:
            return text
    return text


def text_in(block: Block, *names: str) -> str | None:
    """The first of these that is a text."""
    return next((value for name in names if isinstance(value := block.get(name), str)), None)


def _said(kind: str, *names: str) -> Callable[[Block, int], Part | None]:
    def read(block: Block, _depth: int) -> Part | None:
        text = text_in(block, *names)
        return None if text is None else Part(kind, text)

    return read


def _reasoning(block: Block, depth: int) -> Part | None:
    """Reasoning as text, or as the lists of summaries and texts of an item of the Responses API."""
    texts = [text] if (text := text_in(block, "thinking", "reasoning", "content", "text")) else []
    for name in ("summary", "content"):
        items = block.get(name)
        for item in items if isinstance(items, list) else ():
            texts += [part.text for part in read_content(item, depth + 1) if part.text]
    hidden = text_in(block, "encrypted_content", "data")
    if not texts and hidden is None and not {"summary", "content", "thinking"} & block.keys():
        return None
    return Part("reasoning", "\n".join(texts), size=_size(hidden))


def _call(block: Block, depth: int) -> Part:
    """A tool call: of OpenAI also inside of ``function`` or ``custom``."""
    inner = next((block[name] for name in ("function", "custom") if isinstance(block.get(name), dict)), block)
    given = next(
        (inner[name] for name in ("arguments", "input", "args") if inner.get(name) is not None), None
    )
    name = text_in(inner, "name", "tool_name") or text_in(block, "type")
    if given is None and inner is block:
        known = {"type", "id", "call_id", "name", "status", "index"}
        given = {key: value for key, value in block.items() if key not in known} or None
    result = next((block[name] for name in ("output", "error") if block.get(name) is not None), None)
    parts: tuple[Part, ...] = ()
    if result is not None and inner is block:  # of a tool that the provider runs
        told = tuple(read_content(result, depth + 1))
        parts = (Part("tool_result", parts=told, is_error="output" not in block),)
    return Part("tool_call", name=name, id=_id(block), arguments=read_json(given), parts=parts)


def _result(block: Block, depth: int) -> Part:
    names = ("content", "output", "response", "result", "tool_call_response")
    value = next((block[name] for name in names if name in block), None)
    is_error = block.get("is_error") is True or block.get("status") == "error"
    return Part(
        "tool_result",
        name=text_in(block, "name"),
        id=_id(block),
        parts=tuple(read_result(value, depth + 1)),
        is_error=is_error,
    )


def read_result(value: Any, depth: int = 0) -> Iterator[Part]:
    """The parts of a tool's result: an object that is no block is data."""
    if isinstance(value, dict) and not isinstance(value.get("type"), str):
        yield Part("data", data=value)
    else:
        yield from read_content(value, depth)


def _id(block: Block) -> str | None:
    return text_in(block, "tool_use_id", "tool_call_id", "call_id", "id")


def _media(default: str) -> Callable[[Block, int], Part | None]:
    def read(block: Block, _depth: int) -> Part | None:
        inner = _inner(block, default)
        if inner is None:
            return None
        data = text_in(inner, "base64", "data", "file_data", "bytes", "content")
        url = text_in(inner, "url", "uri", "file_url", "image_url", "fileUri", "file_uri")
        mime = text_in(inner, "media_type", "mime_type", "mimeType") or text_in(block, "mime_type")
        for text in (data, url):
            if text is not None and text.startswith("data:"):
                mime = text[5:MAX_ADDRESS].partition(",")[0].partition(";")[0] or mime
                data, url = text, None
        kind = text_in(block, "modality") or (mime or "").partition("/")[0]
        name = text_in(inner, "filename", "file_name", "title", "name") or text_in(block, "title", "filename")
        name = name or url or text_in(inner, "file_id", "id")
        if data is None and name is None:
            return None
        fmt = text_in(inner, "format")
        return Part(
            kind if kind in MEDIA else default,
            name=None if name is None else name[:MAX_ADDRESS],
            mime=mime or (f"{default}/{fmt}" if fmt else None),
            size=_size(data),
        )

    return read


def _inner(block: Block, kind: str) -> Block | None:
    """The object that holds a file: the block itself, or one in it."""
    for name in ("source", "image_url", "input_audio", "file", "inline_data", "file_data", "video_url", kind):
        inner = block.get(name)
        if isinstance(inner, dict):
            return inner
        if name == "image_url" and isinstance(inner, str):
            return {"url": inner}
    return block


def _size(data: str | None) -> int | None:
    """The number of bytes in base64; ``None`` for other text and for data that was cut."""
    if data is None:
        return None
    start = data.find(_BASE64, 0, MAX_ADDRESS)
    start = start + len(_BASE64) if start >= 0 else 0
    ends = data[start : start + _HEAD], data[max(start, len(data) - _HEAD) :]
    if not all(map(_ENCODED.fullmatch, ends)):
        return None
    return (len(data) - start) * 3 // 4 - data[-2:].count("=")


def _document(block: Block, depth: int) -> Part | None:
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "text" and isinstance(source.get("data"), str):
        text: str = source["data"]
        return Part(
            "file",
            text,
            name=text_in(block, "title"),
            mime="text/plain",
            size=len(text.encode(errors="surrogatepass")),
        )
    return _media("file")(block, depth)


_GEMINI: Final = {
    "inlineData": "inline_data",
    "fileData": "file_data",
    "functionCall": "function_call",
    "functionResponse": "function_response",
    "toolCall": "tool_call",
    "toolResponse": "tool_response",
    "executableCode": "executable_code",
    "codeExecutionResult": "code_execution_result",
}


def _of_gemini(block: Block, depth: int) -> Part | None:
    """A part of Gemini, whose only key says what it is, in the spelling of JSON or of Python."""
    block = {_GEMINI.get(key, key): value for key, value in block.items()}
    if (text := text_in(block, "text")) is not None:
        return Part("reasoning" if block.get("thought") is True else "text", text)
    for name, read in _OF_GEMINI.items():
        inner = block.get(name)
        if isinstance(inner, dict):
            return read({key: value for key, value in inner.items() if value is not None}, depth)
    return None


_OF_GEMINI: Final[Mapping[str, Callable[[Block, int], Part | None]]] = {
    "inline_data": _media("file"),
    "file_data": _media("file"),
    **dict.fromkeys(("function_call", "tool_call"), _call),
    **dict.fromkeys(("function_response", "tool_response"), _result),
    "executable_code": lambda block, _: Part(
        "tool_call", name="executable_code", arguments=block.get("code")
    ),
    "code_execution_result": lambda block, depth: Part(
        "tool_result", name="executable_code", parts=tuple(read_result(block.get("output"), depth + 1))
    ),
}
_READERS: Final[Mapping[str, Callable[[Block, int], Part | None]]] = {
    **dict.fromkeys(
        ("text", "input_text", "output_text", "summary_text", "reasoning_text", "text_delta"),
        _said("text", "text", "content"),
    ),
    "text-plain": _said("text", "text"),
    "refusal": _said("refusal", "refusal"),
    **dict.fromkeys(("thinking", "redacted_thinking", "reasoning", "thought"), _reasoning),
    **dict.fromkeys(
        ("function", "custom", "tool_use", "tool_call", "invalid_tool_call", "tool_call_chunk"), _call
    ),
    **dict.fromkeys(("tool_result", "tool_call_response"), _result),
    **dict.fromkeys(("image", "image_url", "input_image"), _media("image")),
    **dict.fromkeys(("audio", "input_audio"), _media("audio")),
    **dict.fromkeys(("video", "video_url"), _media("video")),
    **dict.fromkeys(("file", "input_file", "blob", "uri", "container_upload"), _media("file")),
    "document": _document,
}
