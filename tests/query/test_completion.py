"""What may come next in a filter that is being typed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wherefrom.query.completion import offers
from wherefrom.query.fields import Field, field_names

VALUES = {
    "name": ["OK", "ERROR"],
    "metadata.app_version": ["1.0.0", "1.1.0"],
    "metadata.a key": ["x"],
    "user": ["alice"],
}


class Known:
    """A store with a few keys and values."""

    def spelled_keys(self) -> Iterator[str]:
        yield from ("metadata.app_version", "metadata.`a key`", "tag.team", "span.attributes.http.route")

    def values(self, field: Field, limit: int) -> list[str]:
        return VALUES.get(field.label, [])[:limit]


def offered(text: str) -> list[str]:
    found = [offer for offer, _ in offers(text, Known(), len)]
    assert all(offer.startswith(text) for offer in found)
    return [offer.removeprefix(text) for offer in found]


def test_first_come_fields_and_keys() -> None:
    found = offered("")
    assert {"status", "timestamp", "span.name", "metadata.app_version", "tag.team"} <= set(found)
    assert not {"metadata", "tag", "experiment_id"} & set(found)
    assert offered("metadata.") == ["app_version", "`a key`"]
    assert offered("NOT (t") == ["imestamp", "ime_to_first_byte", "okens", "ag.team"]
    assert offered("span.attributes.h")[0].startswith("ttp.route ")


def test_other_names_of_fields_are_offered_where_no_first_name_begins_so() -> None:
    assert "trace_id =" in [f"trace_i{rest}" for rest in offered("trace_i")]
    assert all(name in field_names() for name in ["trace_id"])


@pytest.mark.parametrize(
    ("text", "rests"),
    [
        ("name = ", ["'OK'", "'ERROR'"]),
        ("name =", [" 'OK'", " 'ERROR'"]),
        ("name = '", ["OK'", "ERROR'"]),
        ("`metadata`.app_version = ", ["'1.0.0'", "'1.1.0'"]),
        ("`metadata`.`a key` = ", ["'x'"]),
        ("`name` = ", ["'OK'", "'ERROR'"]),
        ("name='E", ["RROR'"]),
        ("name = 'ERROR'", [" AND", " OR"]),
        ("name = 'ERROR' ", ["AND", "OR"]),
        ("name = 'ERROR' o", None),
        ("name = 'ERROR' A", None),
        ("name = 'ERROR') ", ["AND", "OR"]),
        ("name IN ", ["('OK'", "('ERROR'"]),
        ("name IN (", ["'OK'", "'ERROR'"]),
        ("name IN ('OK'", [",", ")"]),
        ("name IN ('OK' ", [",", ")"]),
        ("name IN ('OK', ", ["'OK'", "'ERROR'"]),
        ("name IN ('OK')", [" AND", " OR"]),
        ("name NOT ", ["LIKE", "ILIKE", "IN"]),
        ("name NOT l", ["ike 'OK'", "ike 'ERROR'"]),
        ("user IS ", ["NULL", "NOT NULL"]),
        ("user IS NOT", [" NULL AND", " NULL OR"]),
        ("user IS NULL ", ["AND", "OR"]),
        ("metadata.`a k", None),
        ("metadata.`a key` = ", ["'x'"]),
        ("user", None),
        ("user =", [" 'alice'"]),
        ("user = 'o''b", []),
        ("user = 'o''b' AND user = ", ["'alice'"]),
        ("nothing = ", []),
        ("feedback.x = ", []),
        ("name = 'OK' = ", []),
        ("name IN = ", []),
        ("name IN ('OK' 'ERROR' ", []),
        ("name = % ", []),
        ("client_request_id = ", []),
        ("a" * 10, []),
    ],
)
def test_what_comes_next(text: str, rests: list[str] | None) -> None:
    found = offered(text)
    if rests is not None:
        assert found == rests
    else:
        assert len(found) > 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("durat", ["duration", "execution_time"]),
        ("NOT versi", ["NOT metadata.app_version"]),
        ("status = 'OK' AND team", ["status = 'OK' AND tag.team"]),
        ("name = err", ["name = 'ERROR'"]),
        ("name IN ('rro", ["name IN ('ERROR'"]),
        ("first by", []),
        ("milli", []),
        ("byte", ["time_to_first_byte"]),
        ("in ms", []),
        ("what was asked", []),
        ("header", []),
        ("asked", ["request_preview"]),
        ("feedback.x = er", []),
        ("name = 'OK' a", []),
    ],
)
def test_words_inside_of_names_values_and_meanings_are_offered_last(text: str, expected: list[str]) -> None:
    """Where the text may be replaced, as on the page."""
    found = [offer for offer, _ in offers(text, Known(), len, inside=True)]
    assert [offer for offer in expected if offer not in found] == []
    if not expected:
        assert all(offer.startswith(text) for offer in found)


def test_a_word_alone_is_offered_with_what_follows() -> None:
    """A shell that sees one word alone closes the quotes after it."""
    assert offered("statu")[:2] == ["s =", "s !="]
    assert offered("metadata.app_version L") == ["IKE '1.0.0'", "IKE '1.1.0'"]
    assert offered("client_request_id ILI") == ["KE"]


def test_states_are_offered_whether_traces_have_them_or_not() -> None:
    """The values of ``status`` are known in advance."""
    assert offered("status = ") == ["'STATE_UNSPECIFIED'", "'IN_PROGRESS'", "'OK'", "'ERROR'"]
    assert offered("status='E") == ["RROR'"]
