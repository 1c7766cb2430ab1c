from __future__ import annotations

import pytest

from wherefrom.web.parameters import Kind, Parameter, ParameterError, Parameters, encode, read_parameters

TABLE = (
    Parameter("filter", "a filter"),
    Parameter("size", "how many", Kind.INTEGER, 50, least=1, most=500),
    Parameter("share", "a share", Kind.NUMBER, least=0, most=1),
    Parameter("live", "whether", Kind.FLAG, False),
    Parameter("order", "which first", default="newest", choices=("newest", "oldest")),
    Parameter("column", "a column", many=True, default=("time",)),
    Parameter("trace_id", "an id", in_path=True),
)


def read(*given: tuple[str, str]) -> Parameters:
    return read_parameters(TABLE, given, {"trace_id": "tr-1"})


def test_what_is_not_given_has_its_default() -> None:
    """An empty text is one that a form sends for what was not filled in."""
    query = read(("filter", ""), ("column", ""))
    assert query.values == {
        "filter": None, "size": 50, "share": None, "live": False, "order": "newest", "column": ("time",),
        "trace_id": "tr-1",
    }  # fmt: skip
    assert query.query() == ""


def test_values_are_of_their_kind() -> None:
    """Texts of an address become what the table says."""
    given = ("size", "7"), ("share", "0.5"), ("live", "true"), ("column", "a"), ("column", "b")
    query = read(*given)
    assert [query[name] for name in ("size", "share", "live", "column")] == [7, 0.5, True, ("a", "b")]
    assert query.query(size=None, live=False) == "share=0.5&live=false&column=a&column=b"
    assert query.text("filter") is None
    assert query.text("size") == "7"


@pytest.mark.parametrize(
    ("name", "text", "takes"),
    [
        ("size", "0", "size takes integer from 1 to 500, not '0'"),
        ("size", "501", "from 1 to 500"),
        ("size", "1e9", "not '1e9'"),
        ("size", "", "size takes"),
        ("order", "", "order takes one of"),
        ("size", "٣", "size takes"),
        ("share", "nan", "share takes"),
        ("live", "yes", "true or false"),
        ("order", "best", "order takes one of newest, oldest, not 'best'"),
        ("filter", "x" * 10_001, "at most 10,000 characters"),
        ("sise", "1", "there is no parameter 'sise' here; did you mean size?"),
        ("trace_id", "tr-2", "there is no parameter 'trace_id' here"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, text: str, takes: str) -> None:
    """One sentence names the parameter and what it takes."""
    with pytest.raises(ParameterError) as raised:
        read((name, text))
    assert takes in str(raised.value)
    assert len(str(raised.value)) < 200


def test_what_is_taken_once_is_given_once() -> None:
    """Of two values neither is the one that is meant."""
    with pytest.raises(ParameterError, match="size is given 2 times"):
        read(("size", "1"), ("size", "2"))
    with pytest.raises(ParameterError, match="at most 100 times"):
        read(*[("column", "a")] * 101)


def test_addresses_leave_out_what_is_empty() -> None:
    """What is not asked for does not stand in the address."""
    assert (
        encode({"a": None, "b": "", "c": (), "d": 0, "e": "x y&z", "f": ["1", "2"]})
        == "d=0&e=x+y%26z&f=1&f=2"
    )
