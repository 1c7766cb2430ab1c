"""Filters as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom import FilterError
from wherefrom.query import format_filter, parse_filter
from wherefrom.query.forgiving import parse_search, single_word, spell_out
from wherefrom.query.tree import Node

from .samples import filters


def found(text: str) -> str:
    tree = parse_search(text)
    assert tree is not None
    assert parse_filter(format_filter(tree)) == tree
    return format_filter(tree)


@given(tree=filters)
@settings(max_examples=100, deadline=None)
def test_what_is_a_filter_keeps_its_meaning(tree: Node) -> None:
    assert parse_search(format_filter(tree)) == tree


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("timeout", "search ILIKE '%timeout%'"),
        ("'it''s late'", "search ILIKE '%it''s late%'"),
        ('"two words"', "search ILIKE '%two words%'"),
        ("42", "search ILIKE '%42%'"),
        ("what is it", "search ILIKE '%what%' AND search ILIKE '%is%' AND search ILIKE '%it%'"),
        ("error in model?", "search ILIKE '%error%' AND search ILIKE '%in%' AND search ILIKE '%model?%'"),
        ("GET /chat/{id}", "search ILIKE '%GET%' AND search ILIKE '%/chat/{id}%'"),
        ("لماذا", "search ILIKE '%لماذا%'"),
        ("late OR early", "search ILIKE '%late%' OR search ILIKE '%early%'"),
        ("NOT late", "NOT search ILIKE '%late%'"),
        ("status = error", "status = 'ERROR'"),
        ("status=error timeout", "status = 'ERROR' AND search ILIKE '%timeout%'"),
        ("timeout status != ok", "search ILIKE '%timeout%' AND status != 'OK'"),
        ("status = error AND user = alice-2", "status = 'ERROR' AND user = 'alice-2'"),
        ("status IN (ok, error)", "status IN ('OK', 'ERROR')"),
        ("status IN (ok, 'x')", "status IN ('OK', 'x')"),
        ("span.type = llm", "span.type = 'LLM'"),
        ("metadata.`a key` = b", "metadata.`a key` = 'b'"),
        ("state = ok", "status = 'OK'"),
        ("state = 'OK'", "status = 'OK'"),
        ("user_id = 'a' AND latency_ms > 5", "user = 'a' AND execution_time > 5"),
        ("version = 1.1.0", "metadata.app_version = '1.1.0'"),
        ("user = 42", "user = '42'"),
        ("request id = req-1", "client_request_id = 'req-1'"),
        ("trace id = tr-1", "request_id = 'tr-1'"),
        ("session id LIKE s%", "session_id LIKE 's%'"),
        ("name NOT LIKE %chat%", "name NOT LIKE '%chat%'"),
        ("duration > 2s", "execution_time > '2s'"),
        ("time > 2h ago late", "timestamp > '2h ago' AND search ILIKE '%late%'"),
        ("timestamp > 2026-01-31", "timestamp > '2026-01-31'"),
        ("(late OR status = error) user = a", "(search ILIKE '%late%' OR status = 'ERROR') AND user = 'a'"),
        ("user IS NULL late", "user IS NULL AND search ILIKE '%late%'"),
    ],
)  # fmt: skip
def test_what_is_meant_is_understood(text: str, meant: str) -> None:
    assert found(text) == meant
    assert spell_out(text) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stauts = error", "there is no field 'stauts'; did you mean status?"),
        ("status == error", "did you mean =?"),
        ("status = 'OK", "never closed"),
        ("timestamp > soon", "expected a time"),
        ("status =", "expected text"),
        ("(late", "there is no field 'late'"),
        ("model_x = 'm'", "there is no field"),
        ("a" * 30 + " = 1", "there is no field"),
        ("w " * 600 + "=", "there is no field 'w'"),
        ("aa AND OR bb", "there is no field 'aa'"),
        ("(aa and or bb)", "there is no field 'aa'"),
        ("aa AND", "there is no field 'aa'"),
        ("late \ud800", "a lone surrogate"),
        ("late 'x\udfff'", "a lone surrogate"),
    ],
)
def test_what_cannot_be_meant_is_the_error_of_the_filter(text: str, message: str) -> None:
    with pytest.raises(FilterError) as strict:
        parse_filter(text)
    with pytest.raises(FilterError) as raised:
        parse_search(text)
    assert str(raised.value) == str(strict.value)
    assert message in str(raised.value)
    assert spell_out(text) == text


def test_nothing_is_every_trace() -> None:
    assert [parse_search(text) for text in (None, "", "  ")] == [None, None, None]
    assert spell_out("  ") is None


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@settings(max_examples=200, deadline=None)
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    try:
        tree = parse_search(text)
    except FilterError:
        return
    if tree is not None:
        assert parse_filter(format_filter(tree)) == tree


def test_a_word_alone_is_told_from_a_filter() -> None:
    assert single_word(parse_search("tr-1")) == "tr-1"
    assert [single_word(parse_search(text)) for text in ("a b", "user = 'a'", "")] == [None, None, None]
