"""Markdown of messages, formatted and sanitized."""

from __future__ import annotations

import pytest

from wherefrom.messages.content import Conversation, Message, Part
from wherefrom.web.blocks import Room, blocks_of, markdown, raw


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# Title", "<p><strong>Title</strong></p>"),
        ("a <b>b</b> &amp; c", "<p>a &lt;b&gt;b&lt;/b&gt; &amp; c</p>\n"),
        ("    code <i>", '<pre tabindex="0"><code>code &lt;i&gt;\n</code></pre>'),
        ("~~x~~ `y`", "<p><s>x</s> <code>y</code></p>\n"),
        ("3. x", '<ol start="3">\n<li>x</li>\n</ol>\n'),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"),
        ("[x](data:text/html,x)", "<p>[x](data:text/html,x)</p>\n"),
        ("[x](/relative)", '<p><a href="/relative" rel="noopener noreferrer nofollow external">x</a></p>\n'),
        ("\u0645\u200c\u0646", "<p>\u0645\u200c\u0646</p>\n"),
    ],
)
def test_markdown(text: str, html: str) -> None:
    """A few elements are left; HTML is text, and headings are no headings of the page."""
    assert str(markdown(text)) == html


def conversation(*messages: Message) -> Conversation:
    return Conversation(messages, ())


def test_long_texts_are_not_formatted() -> None:
    """Formatting is limited for each text and for a page; the rest is plain text, until the page is full."""
    texts = ["a" * 30_000, "[" * 1_000, "*b*", "c" * 100]
    room = Room(markdown=1_000, text=31_050)
    blocks = list(blocks_of(conversation(*(Message("user", (Part("text", text),)) for text in texts)), room))
    said = [block.pieces[0].said for block in blocks]
    assert [one is not None and one.html is not None for one in said] == [False, False, True, False]
    assert [one and one.cut for one in said] == [0, 0, 0, 53]


def test_large_tables_are_not_formatted() -> None:
    """The rows of a table have the columns of the first, however short they are."""
    small, large = (f"{'|a' * n}|\n{'|-' * n}|\n" + "|a\n" * n for n in (20, 100))
    room = Room()
    blocks = list(
        blocks_of(conversation(*(Message("user", (Part("text", t),)) for t in (small, large))), room)
    )
    said = [block.pieces[0].said for block in blocks]
    assert [one is not None and one.html is not None for one in said] == [True, False]
    assert room.markdown == 60_000 - 21 * 22


def test_conversations_without_a_user() -> None:
    """All but the system prompt is open."""
    told = conversation(
        Message("system", (Part("text", "s"),)), Message("assistant", ()), Message("critic", ())
    )
    assert [block.is_open for block in blocks_of(told)] == [False, True, True]
    assert [block.role for block in blocks_of(told)] == ["system", "assistant", "other"]


def test_many_messages() -> None:
    """Of those that are folded, the first four hundred are on the page."""
    turns = [Message("user", (Part("text", str(at)),)) for at in range(1_000)]
    blocks = list(blocks_of(conversation(*turns)))
    assert len(blocks) == 401
    assert blocks[-1].line == "999"


def test_parts_of_every_kind() -> None:
    """Each has its label."""
    parts = (
        Part("reasoning", "", size=10),
        Part("file", "doc", name="a.txt", mime="text/plain", size=3),
        Part("tool_call", name="f", arguments={"a": "x" * 500}),
        Part("tool_result", name="g", parts=(Part("text", "[1]"), Part("image", mime="image/png"))),
    )
    (block,) = blocks_of(conversation(Message("assistant", parts)))
    reasoning, file, call, result = block.pieces
    assert reasoning.label == "encrypted"
    assert (file.label, file.data) == ("text/plain a.txt", 3)
    assert call.label.endswith("…)")
    assert [one.kind for one in result.results] == ["data", "image"]
    assert raw("x" * 100_000).text is None
