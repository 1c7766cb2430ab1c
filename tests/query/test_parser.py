"""Errors show where and what was expected; limits are one sentence; time words are moments."""

from __future__ import annotations

import re
import time

import pytest

from wherefrom.exceptions import FilterError, WherefromError
from wherefrom.query import format_filter, parse_filter
from wherefrom.query.fields import ALL_FIELDS, Operator, Type, field_names
from wherefrom.query.tree import And, Compare, conditions
from wherefrom.query.values import to_duration, to_moment, to_number

NOW = 1_700_000_000_000


def message(text: str, *known: str) -> str:
    with pytest.raises(FilterError) as caught:
        parse_filter(text, lambda: known)
    assert isinstance(caught.value, WherefromError)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def test_an_error_shows_the_text_with_a_caret() -> None:
    assert message("metadata.app_version == '1.0.0'").splitlines() == [
        f"expected an operator after metadata.app_version: it takes {', '.join(Operator)}; did you mean =?",
        "  metadata.app_version == '1.0.0'",
        "                       ^^",
    ]


def test_an_error_in_a_long_text_shows_its_surroundings() -> None:
    text = "name = 'a' AND " * 20 + "nam = 'b' AND\tname = 'c'" + " AND name = 'd'" * 20
    first, shown, carets = message(text).splitlines()
    assert first == "there is no field 'nam'; did you mean name?"
    assert shown.startswith("  ...")
    assert shown.endswith("...")
    assert shown[carets.index("^") : carets.rindex("^") + 1] == "nam"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stauts = 'OK'", "there is no field 'stauts'; did you mean status?"),
        ("state = 'OK'", "did you mean status?"),
        ("request_time > 5", "did you mean timestamp?"),
        ("execution_duration > 5", "did you mean execution_time?"),
        ("model_id = 'm'", "did you mean metadata.mlflow.modelId?"),
        ("Metadata.a = 'x'", "there is no 'Metadata' to ask for; did you mean metadata"),
        ("spans.name = 'x'", "did you mean span?"),
        ("span.nam = 'x'", "did you mean span.name"),
        ("tenant_id = 'x'", "there is no field 'tenant_id'; did you mean metadata.tenant_id?"),
        ("tenant = 'x'", "did you mean metadata.tenant_id"),
        ("xyzzy = 'x'", "there is no field 'xyzzy'\n"),
        ("name LIEK 'x'", "did you mean LIKE"),
        ("name <> 'x'", "did you mean !=?"),
        ("cost > cheap", "expected a number\n"),
        ("name = x", "expected text, in quotes unless it is a number"),
        ("name = 5", "name = takes text: put the number in quotes"),
        ("metadata.a > '5'", "metadata.a > takes a number: write it without quotes"),
        ("metadata.a LIKE 5", "takes text"),
        ("name > 'x'", "name does not take >: it takes =, !="),
        ("status IS NULL", "status does not take IS NULL"),
        ("name IS 'x'", "expected NULL or NOT NULL"),
        ("name IN 'x'", "expected '(' and a list of quoted values"),
        ("name IN ()", "expected a value in quotes"),
        ("name IN ('x'", "expected ',' or ')'"),
        ("name IN (,)", "expected a value in quotes"),
        ("name IN ('x',,)", "expected a value in quotes"),
        ("`Metadata`.a = 'x'", "there is no 'Metadata' to ask for; did you mean metadata"),
        ("`metadata`. = 'x'", "expected a key right after '`metadata`.'"),
        ("name = 'x' name = 'y'", "expected AND, OR or the end"),
        ("(name = 'x'", "expected ')', AND or OR"),
        ("name = 'x", "a quote ' that is never closed"),
        ("metadata. = 'x'", "expected a key right after 'metadata.'"),
        ("metadata.key-dash = 'x'", "unexpected '-': a key with such a character goes in backticks"),
        ("AND name = 'x'", "expected a field such as metadata.app_version or status"),
        ("name", "expected an operator after name"),
        ("timestamp > 'soon'", "'soon' is no time: expected milliseconds since the epoch, '2h ago'"),
        (
            "execution_time > '5 parsecs'",
            "'5 parsecs' is not understood: expected milliseconds, or text such as",
        ),
        ("timestamp > 1e400", "a number too large"),
        ("metadata.a > 1" + "0" * 400, "a number too large"),
        ("name RLIKE '['", "no pattern that can be matched in linear time: missing ]"),
        (r"name RLIKE '(a)\1'", "no pattern that can be matched in linear time"),
        ("name RLIKE '(?=a)'", "no pattern that can be matched in linear time"),
        ("name LIKE '" + "a" * 50_001 + "'", "a pattern has at most 50,000 bytes"),
        ("name = '\ud800'", "a lone surrogate"),
        (" ", "expected a field"),
    ],
)
def test_an_error_says_what_was_expected(text: str, said: str) -> None:
    assert said in message(text, "metadata.tenant_id", "tag.team")


def test_a_filter_is_text() -> None:
    with pytest.raises(FilterError, match="expected text, not 5"):
        parse_filter(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, ""])
def test_no_filter_is_no_tree(text: str | None) -> None:
    assert parse_filter(text) is None


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("request_metadata.a='x'", "metadata.a = 'x'"),
        ("tags.`a b` like 'x'", "tag.`a b` LIKE 'x'"),
        ("trace.text ilike '%x%'", "span.content ILIKE '%x%'"),
        ("attributes.timestamp_ms >= 5", "timestamp >= 5"),
        ('`status` in ("OK")', "status IN ('OK')"),
        ("trace_id = 'x' and session_id is null", "request_id = 'x' AND session_id IS NULL"),
        ("((name = 'x'))", "name = 'x'"),
        ("NOT NOT name = 'x'", "NOT NOT name = 'x'"),
        ("name = 'a' OR name = 'b' AND NOT (name = 'c' OR name = 'd')",) * 2,
        ("(name = 'a' OR name = 'b') AND name = 'c'",) * 2,
        ("name = 'a' AND (name = 'b' AND name = 'c')",) * 2,
        ("metadata.\"tick`\" = 'it''s'", "metadata.\"tick`\" = 'it''s'"),
        ("metadata.a = 1.50", "metadata.a = 1.5"),
        ("metadata.a = 'C:\\' AND name = 'x'",) * 2,
        ("`metadata`.app_version = '1'", "metadata.app_version = '1'"),
        ("`request_metadata`.`a b` is null", "metadata.`a b` IS NULL"),
        ("`tags`.\"a b\" = '1'", "tag.`a b` = '1'"),
        ("`trace`.`status` = 'OK' AND `attributes`.timestamp_ms > 5", "status = 'OK' AND timestamp > 5"),
        ("`span`.`attributes.k` = 'x' AND `span`.name = 'y'", "span.attributes.k = 'x' AND span.name = 'y'"),
        ("`metadata`.x.y LIKE 'a%'", "metadata.x.y LIKE 'a%'"),
        ("status IN ('ERROR',)", "status IN ('ERROR')"),
        ("tag.a NOT IN (\"x\" , 'y' , )", "tag.a NOT IN ('x', 'y')"),
        ("span.attributes.`a.b` != -1e3", "span.attributes.a.b != -1000.0"),
    ],
)
def test_formatting(text: str, same: str) -> None:
    tree = parse_filter(text)
    assert tree is not None
    assert format_filter(tree) == same


def test_a_backslash_before_a_quote_belongs_to_the_value_where_nothing_else_can_be_meant() -> None:
    tree = parse_filter(r"metadata.v = 'it\'s'")
    assert isinstance(tree, Compare)
    assert tree.value == r"it\'s"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(" * 101 + "name = 'x'" + ")" * 101, "at most 100 NOTs and parentheses"),
        ("NOT " * 21 + "name = 'x'", "at most 20 ANDs, ORs and NOTs"),
        ("NOT " * 100_000 + "name = 'x'", "at most 25,000 words"),
        ("(" * 20_000, "at most 100 NOTs and parentheses"),
        (" AND ".join(["name = 'x'"] * 501), "a filter has at most 500 conditions"),
        ("name IN (" + ", ".join(["'x'"] * 5001) + ")", "a filter lists at most 5,000 values"),
        ("name = '" + "x" * 1_000_000 + "'", "a filter has at most 1,000,000 characters"),
        ("'" * 100_001, "never closed"),
        ("name = " + "\\'" * 50_000, "a key with such a character"),
    ],
)
def test_a_huge_filter_is_refused_in_one_sentence_and_soon(text: str, said: str) -> None:
    started = time.thread_time()  # a busy machine is no failure
    first_line = message(text).splitlines()[0]
    assert said in first_line
    assert time.thread_time() - started < 1


def test_conditions_are_found_from_left_to_right() -> None:
    tree = parse_filter("name = 'a' OR NOT (status = 'b' AND user = 'c')")
    assert tree is not None
    assert [condition.value for condition in conditions(tree)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("2h ago", NOW - 7_200_000),
        ("1h 30m ago", NOW - 5_400_000),
        ("90 minutes ago", NOW - 5_400_000),
        ("1.5d ago", NOW - 129_600_000),
        ("2 Weeks Ago", NOW - 1_209_600_000),
        ("today", 1_699_920_000_000),
        ("yesterday", 1_699_833_600_000),
        ("2023-11-14", 1_699_920_000_000),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14 22:13:20", NOW),
        ("2023-11-15T00:13:20+02:00", NOW),
        ("1700000000000", NOW),
    ],
)
def test_moments(text: str, moment: int) -> None:
    assert to_moment(text, NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "ago", "2 ago", "h ago", "2x ago", "2023-13-01", "1" * 10_000 + "x ago"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="expected milliseconds"):
        to_moment(text, NOW)


@pytest.mark.parametrize(("text", "ms"), [("1.5s", 1500), ("200", 200), ("200 ms", 200), ("1m30s", 90_000)])
def test_durations(text: str, ms: int) -> None:
    assert to_duration(text) == ms


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("-1.50", -1.5),
        ("+.5", 0.5),
        ("1e3", 1000),
        ("01", 1),
        ("", None),
        (" 1", None),
        ("1\n", None),
    ],
)
def test_numbers_in_text(text: str, number: float | None) -> None:
    assert to_number(text) == number


def test_the_field_table_is_whole() -> None:
    """Each name belongs to one field, and each field has a help text."""
    names = list(field_names())
    assert len(names) == len(set(names))
    for field in ALL_FIELDS:
        assert re.fullmatch(r"[A-Z\d].+\.", field.help), field
        assert set(field.operators) <= set(Operator)
        assert field.nullable == (Operator.IS_NULL in field.operators)
        assert repr(field) == f"<Field {field.label}>"
        assert field.type in Type


def test_an_and_keeps_its_parts() -> None:
    tree = parse_filter("name = 'a' AND name = 'b' AND name = 'c'")
    assert isinstance(tree, And)
    assert len(tree.parts) == 3
