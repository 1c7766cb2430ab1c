from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.propagation import BaggageMember, format_baggage, parse_baggage

TOKEN_CHARS = "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"

tokens = st.text(TOKEN_CHARS, min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
properties = st.lists(st.tuples(tokens, st.none() | texts), max_size=3).map(tuple)
members = st.builds(BaggageMember, tokens, texts, properties)


def parse(*values: str) -> tuple[BaggageMember, ...]:
    return parse_baggage([(b"baggage", value.encode("latin-1")) for value in values])


class TestParse:
    @pytest.mark.parametrize(
        ("values", "members"),
        [
            (["SomeKey=SomeValue"], [BaggageMember("SomeKey", "SomeValue")]),
            (["a=1,b=2"], [BaggageMember("a", "1"), BaggageMember("b", "2")]),
            (["a=1", "b=2"], [BaggageMember("a", "1"), BaggageMember("b", "2")]),
            (["a=1,a=2"], [BaggageMember("a", "1"), BaggageMember("a", "2")]),
            (["a="], [BaggageMember("a", "")]),
            (["a=b=c=="], [BaggageMember("a", "b=c==")]),
            (["a=DF%2028"], [BaggageMember("a", "DF 28")]),
            (["a=caf%C3%a9"], [BaggageMember("a", "café")]),
            (["a=1+1"], [BaggageMember("a", "1+1")]),
            (["a=%FFx%C3"], [BaggageMember("a", "\ufffdx\ufffd")]),
            (["a=100%"], [BaggageMember("a", "100%")]),
            (["a=%zz"], [BaggageMember("a", "%zz")]),
            (["a%20b=1"], [BaggageMember("a%20b", "1")]),
            (["a=1;p;q=%20"], [BaggageMember("a", "1", (("p", None), ("q", " ")))]),
            (["a=1;p="], [BaggageMember("a", "1", (("p", ""),))]),
            (["a=1; ;p;"], [BaggageMember("a", "1", (("p", None),))]),
            (
                ["a \t = \t 1 \t ; \t p \t , \t b \t = \t 2 \t ; \t q \t = \t 3"],
                [BaggageMember("a", "1", (("p", None),)), BaggageMember("b", "2", (("q", "3"),))],
            ),
            (["!#$&'()*+-./:<>?@[]^_`{|}~=1"], []),
            (["a=!#$&'()*+-./:<>?@[]^_`{|}~"], [BaggageMember("a", "!#$&'()*+-./:<>?@[]^_`{|}~")]),
        ],
    )
    def test_table(self, values: list[str], members: list[BaggageMember]) -> None:
        assert parse(*values) == tuple(members)

    @pytest.mark.parametrize(
        "bad",
        [
            "",
            " ",
            "a",
            "a;p=1",
            "=1",
            "a b=1",
            'a="1"',
            "a=1 2",
            "a=b\\",
            "é=1",
            "a=\xe9",
            "a=\x00",
            "a=1;=2",
            "a=1;p q",
        ],
    )
    def test_an_invalid_member_is_skipped(self, bad: str) -> None:
        assert parse(f"first=1,{bad},last=2") == (BaggageMember("first", "1"), BaggageMember("last", "2"))

    def test_names_in_any_case_and_pairs_as_lists(self) -> None:
        headers = [[b"host", b"a"], [b"Baggage", b"a=1"], [b"BAGGAGE", b"b=2"], [b"bagage_", b"c=3"]]
        assert parse_baggage(headers) == (BaggageMember("a", "1"), BaggageMember("b", "2"))

    def test_no_header(self) -> None:
        assert parse_baggage([(b"host", b"a")]) == ()

    @given(st.lists(st.binary() | st.text("ab=;,% \t\\").map(str.encode)))
    def test_nothing_a_client_sends_raises(self, values: list[bytes]) -> None:
        format_baggage(parse_baggage([(b"baggage", value) for value in values]))


class TestLimits:
    def test_64_members(self) -> None:
        """Invalid members do not count."""
        text = ",,".join(f"k{n}=v" for n in range(65))
        assert [member.key for member in parse(text)] == [f"k{n}" for n in range(64)]
        assert len(format_baggage([BaggageMember(f"k{n}", "v") for n in range(65)]).split(",")) == 64

    def test_8192_bytes(self) -> None:
        assert len(format_baggage(parse("a=" + "x" * 8190))) == 8192
        assert parse("a=" + "x" * 8191) == ()
        assert format_baggage([BaggageMember("a", "x" * 8191)]) == ""

    def test_a_member_that_does_not_fit_leaves_room_for_those_that_do(self) -> None:
        """The comma counts: 4096 and 4095 bytes with one comma are 8192."""
        sizes = {"a": 4094, "b": 4094, "c": 4093, "d": 1}
        expected = ["a", "c"]
        assert [
            m.key for m in parse(",".join(f"{key}={'x' * size}" for key, size in sizes.items()))
        ] == expected
        text = format_baggage([BaggageMember(key, "x" * size) for key, size in sizes.items()])
        assert len(text) == 8192
        assert [m.key for m in parse(text)] == expected


class TestFormat:
    def test_encodes_only_what_must_be(self) -> None:
        member = BaggageMember("k", 'a=b/é ",;\\%\r\n', (("p", None), ("q", "x y"), ("r", "")))
        assert format_baggage([member]) == "k=a=b/%C3%A9%20%22%2C%3B%5C%25%0D%0A;p;q=x%20y;r="

    def test_a_lone_surrogate_becomes_a_question_mark(self) -> None:
        assert format_baggage([BaggageMember("k", "\ud800")]) == "k=?"

    @pytest.mark.parametrize(
        "member",
        [BaggageMember("", "1"), BaggageMember("a b", "1"), BaggageMember("a", "1", (("p\r\nx", None),))],
    )
    def test_keys_that_are_no_token_are_left_out(self, member: BaggageMember) -> None:
        assert format_baggage([member, BaggageMember("ok", "1")]) == "ok=1"

    @given(st.lists(members, max_size=8))
    def test_round_trip(self, baggage: list[BaggageMember]) -> None:
        assert parse(format_baggage(baggage)) == tuple(baggage)
