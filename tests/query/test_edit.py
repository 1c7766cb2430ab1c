from __future__ import annotations

import pytest

from wherefrom.query import format_filter, parse_filter
from wherefrom.query.edit import selected, toggled, with_values, without_values
from wherefrom.query.fields import METADATA, Field, find_field, with_key
from wherefrom.query.tree import Node

STATE = find_field(None, "status")
VERSION = with_key(METADATA, "app_version")


def text(tree: Node | None) -> str:
    return "" if tree is None else format_filter(tree)


@pytest.mark.parametrize(
    ("before", "field", "value", "after"),
    [
        (None, STATE, "ERROR", "status = 'ERROR'"),
        ("status = 'ERROR'", STATE, "ERROR", ""),
        ("status = 'ERROR'", STATE, "OK", "status IN ('ERROR', 'OK')"),
        ("status IN ('ERROR', 'OK')", STATE, "ERROR", "status = 'OK'"),
        ("user = 'a' OR user = 'b'", STATE, "OK", "(user = 'a' OR user = 'b') AND status = 'OK'"),
        ("status != 'OK'", STATE, "OK", "status != 'OK' AND status = 'OK'"),
        (
            "(user = 'a' AND metadata.app_version = '1') AND name = 'x'", VERSION, "2",
            "user = 'a' AND name = 'x' AND metadata.app_version IN ('1', '2')",
        ),
        (None, VERSION, "it's 1' OR '1'='1", "metadata.app_version = 'it''s 1'' OR ''1''=''1'"),
    ],
)  # fmt: skip
def test_a_click_allows_a_value_or_takes_it_back(
    before: str | None, field: Field, value: str, after: str
) -> None:
    """Other conditions are unchanged, and any value becomes one quoted value."""
    assert text(toggled(parse_filter(before), field, value)) == after


def test_what_is_chosen_is_what_has_to_be_so() -> None:
    """An alternative to something else, or an exclusion, chooses nothing."""
    tree = parse_filter("status IN ('OK', 'ERROR') AND name != 'x' AND (user = 'a' OR user = 'b')")
    assert selected(tree, STATE) == ("OK", "ERROR")
    assert selected(tree, find_field(None, "name")) == ()
    assert selected(tree, find_field(None, "user")) == ()
    assert selected(None, STATE) == ()


def test_a_field_is_set_and_freed() -> None:
    """Without values the filter has no condition on the field."""
    tree = parse_filter("status = 'OK' AND user = 'a'")
    assert text(with_values(tree, STATE, ("ERROR",))) == "user = 'a' AND status = 'ERROR'"
    assert text(without_values(tree, STATE)) == "user = 'a'"
    assert without_values(parse_filter("status = 'OK'"), STATE) is None
