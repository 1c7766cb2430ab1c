from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.propagation import (
    SpanContext,
    TraceStateMembers,
    TrustedNetworks,
    extract,
    format_traceparent,
    format_tracestate,
    parse_traceparent,
    parse_tracestate,
    with_member,
)

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
PARENT = f"00-{TRACE}-{SPAN}-01"

KEY_CHARS = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@"
VALUE_CHARS = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")

hex_ids = st.integers(1, 2**128 - 1).map("{:032x}".format)
span_ids = st.integers(1, 2**64 - 1).map("{:016x}".format)
keys = st.from_regex(r"[a-z0-9][a-z0-9_*/@-]{0,20}", fullmatch=True)
values = st.text(VALUE_CHARS, min_size=1, max_size=40).filter(lambda value: not value.endswith(" "))
tracestates = st.dictionaries(keys, values, max_size=32).map(lambda pairs: tuple(pairs.items()))


def parent(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"traceparent", text.encode("latin-1"))]


def state(*texts: str) -> TraceStateMembers:
    """The tracestate that a request with a valid traceparent and these headers carries."""
    headers = [
        (b"traceparent", PARENT.encode()),
        *((b"tracestate", text.encode("latin-1")) for text in texts),
    ]
    context = extract(headers)
    assert context is not None
    assert context.trace_id == TRACE
    return context.tracestate


class TestTraceparent:
    @pytest.mark.parametrize(
        "text",
        [
            PARENT,
            f" {PARENT}",
            f"\t{PARENT}",
            f"{PARENT} ",
            f"{PARENT}\t",
            f"\t {PARENT} \t",
            f"cc-{TRACE}-{SPAN}-01",
            f"cc-{TRACE}-{SPAN}-01\t ",
            f"cc-{TRACE}-{SPAN}-01-",
            f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
            f"01-{TRACE}-{SPAN}-01-\x00\n\xff",
            f"fe-{TRACE}-{SPAN}-01",
        ],
    )
    def test_valid(self, text: str) -> None:
        assert extract(parent(text)) == SpanContext(TRACE, SPAN, 1)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "garbage \xff",
            f"{PARENT}.",
            f"{PARENT}-",
            f"{PARENT}-what-the-future-will-be-like",
            f"{PARENT}\n",
            f"\x0b{PARENT}",
            f"\xa0{PARENT}",
            f"{PARENT},{PARENT}",
            f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like",
            f"cc-{TRACE}-{SPAN}-01 what",
            f"cc-{TRACE}-{SPAN}-0",
            f"ff-{TRACE}-{SPAN}-01",
            f"ff-{TRACE}-{SPAN}-01-future",
            f".0-{TRACE}-{SPAN}-01",
            f"0.-{TRACE}-{SPAN}-01",
            f"000-{TRACE}-{SPAN}-01",
            f"0000-{TRACE}-{SPAN}-01",
            f"0-{TRACE}-{SPAN}-01",
            f"0A-{TRACE}-{SPAN}-01",
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-.{TRACE[1:]}-{SPAN}-01",
            f"00-{TRACE[:-1]}.-{SPAN}-01",
            f"00-{TRACE}3-{SPAN}-01",
            f"00-{TRACE[:-1]}-{SPAN}-01",
            f"00-{'A' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE}-.{SPAN[1:]}-01",
            f"00-{TRACE}-{SPAN[:-1]}.-01",
            f"00-{TRACE}-{SPAN}7-01",
            f"00-{TRACE}-{SPAN[:-1]}-01",
            f"00-{TRACE}-{'B' * 16}-01",
            f"00-{TRACE}-{SPAN}-.0",
            f"00-{TRACE}-{SPAN}-0.",
            f"00-{TRACE}-{SPAN}-001",
            f"00-{TRACE}-{SPAN}-1",
            f"00-{TRACE}-{SPAN}-0F",
            f"00-{TRACE}-{SPAN}",
            f"00_{TRACE}_{SPAN}_01",
            f"00-{TRACE[:-1]}\xb2-{SPAN}-01",
        ],
    )
    def test_invalid(self, text: str) -> None:
        """An invalid traceparent restarts the trace, and its tracestate goes with it."""
        assert extract([*parent(text), (b"tracestate", b"foo=1")]) is None

    @pytest.mark.parametrize("name", [b"traceparent", b"TraceParent", b"TrAcEpArEnT", b"TRACEPARENT"])
    def test_name_in_any_case(self, name: bytes) -> None:
        assert extract([[b"host", b"a"], [name, PARENT.encode()]]) == SpanContext(TRACE, SPAN, 1)

    @pytest.mark.parametrize("name", [b"trace-parent", b"trace.parent", b"traceparen_", b"\xff" * 11, b""])
    def test_other_names(self, name: bytes) -> None:
        assert extract([(name, PARENT.encode())]) is None

    def test_missing(self) -> None:
        assert extract([]) is None
        assert extract([(b"tracestate", b"foo=1")]) is None

    @pytest.mark.parametrize("second", [PARENT, f"00-{'a' * 32}-{SPAN}-01", "garbage"])
    def test_two_headers_restart_the_trace(self, second: str) -> None:
        assert extract([*parent(PARENT), *parent(second)]) is None
        assert extract([*parent(second), (b"TRACEPARENT", PARENT.encode())]) is None

    @pytest.mark.parametrize(
        ("flags", "sampled", "random", "written"),
        [
            ("00", False, False, "00"),
            ("01", True, False, "01"),
            ("02", False, True, "02"),
            ("03", True, True, "03"),
            ("09", True, False, "01"),
            ("fc", False, False, "00"),
            ("ff", True, True, "03"),
        ],
    )
    def test_flags(self, flags: str, sampled: bool, random: bool, written: str) -> None:
        """The random flag is carried on; bits that version 00 does not define are zero on the way out."""
        context = parse_traceparent(f"cc-{TRACE}-{SPAN}-{flags}".encode())
        assert context is not None
        assert (context.sampled, context.random) == (sampled, random)
        assert (
            format_traceparent(TRACE, SPAN, context.sampled, context.random) == f"00-{TRACE}-{SPAN}-{written}"
        )

    @given(hex_ids, span_ids, st.booleans(), st.booleans())
    def test_round_trip(self, trace_id: str, span_id: str, sampled: bool, random: bool) -> None:
        text = format_traceparent(trace_id, span_id, sampled, random)
        assert len(text) == 55
        assert parse_traceparent(text.encode()) == SpanContext(trace_id, span_id, sampled + 2 * random)


class TestTracestate:
    @pytest.mark.parametrize(
        ("texts", "members"),
        [
            (["foo=1"], "foo=1"),
            (["foo=1,bar=2"], "foo=1,bar=2"),
            ([""], ""),
            ([" \t,, "], ""),
            (["foo=1", ""], "foo=1"),
            (["", "foo=1"], "foo=1"),
            ([",foo=1,,\t ,bar=2,"], "foo=1,bar=2"),
            (["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3"),
            (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
            (["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
            ([" foo=1"], "foo=1"),
            (["\tfoo=1"], "foo=1"),
            (["foo=1 "], "foo=1"),
            (["foo=1\t"], "foo=1"),
            (["\t foo=1 \t"], "foo=1"),
            (["foo=  1  2  "], "foo=  1  2"),
            (["foo=1,foo=1"], "foo=1"),
            (["foo=1,bar=2,foo=2"], "foo=1,bar=2"),
            (["foo=1", "foo=2"], "foo=1"),
            (["1foo=1"], "1foo=1"),
            (["foo@=1,bar=2"], "foo@=1,bar=2"),
            (["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
            (["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2"),
        ],
    )
    def test_valid(self, texts: list[str], members: str) -> None:
        assert format_tracestate(state(*texts)) == members

    @pytest.mark.parametrize(
        "texts",
        [
            ["bar=1,foo =1"],
            ["bar=1,FOO=1"],
            ["bar=1,foo.bar=1"],
            ["bar=1,_foo=1"],
            ["@foo=1,bar=2"],
            ["bar=2,@=1"],
            ["foo=bar=baz"],
            ["foo=,bar=3"],
            ["foo=  ,bar=3"],
            ["=1,bar=3"],
            ["foo,bar=3"],
            ["foo=a\tb"],
            ["foo=a\x00"],
            ["foo=a\x7f"],
            ["foo=\xe9"],
            ["foo=1\n"],
            ["foo=1\x0b"],
            ["foo=1;bar=2\xa0"],
        ],
    )
    def test_one_invalid_member_discards_all(self, texts: list[str]) -> None:
        """... but never the traceparent beside it, which ``state`` checks."""
        assert state(*texts) == ()

    @pytest.mark.parametrize("name", [b"tracestate", b"TraceState", b"TrAcEsTaTe", b"TRACESTATE"])
    def test_name_in_any_case(self, name: bytes) -> None:
        context = extract([[name, b"foo=1"], [b"traceparent", PARENT.encode()]])
        assert context == SpanContext(TRACE, SPAN, 1, (("foo", "1"),))

    @pytest.mark.parametrize("name", [b"trace-state", b"trace.state", b"tracestat_"])
    def test_other_names(self, name: bytes) -> None:
        assert extract([*parent(PARENT), (name, b"foo=1")]) == SpanContext(TRACE, SPAN, 1)

    @pytest.mark.parametrize(
        ("key", "legal"),
        [
            ("z" * 256, True),
            ("z" * 257, False),
            ("t" * 241 + "@" + "v" * 14, True),
            ("t" * 242 + "@v", True),
            ("t@" + "v" * 15, True),
            ("t" * 128 + "@" + "v" * 127, True),
            ("t" * 128 + "@" + "v" * 128, False),
            (KEY_CHARS, True),
        ],
    )
    def test_key_length(self, key: str, legal: bool) -> None:
        assert state("foo=1", f"{key}=1") == ((("foo", "1"), (key, "1")) if legal else ())

    @pytest.mark.parametrize(
        ("value", "legal"),
        [
            ("v" * 256, True),
            ("v" * 257, False),
            (" " * 255 + "v", True),
            ("v" * 256 + "  ", True),
            (VALUE_CHARS, True),
        ],
    )
    def test_value_length(self, value: str, legal: bool) -> None:
        assert state(f"foo={value}") == ((("foo", value.rstrip()),) if legal else ())

    def test_member_count(self) -> None:
        """32 members are allowed, blank ones not counted; a 33rd discards all."""
        members = [f"bar{n:02}={n:02}" for n in range(1, 34)]
        assert len(state(",".join(members[:20]), ",," + ",".join(members[20:32]))) == 32
        assert state(",".join(members[:20]), ",".join(members[20:])) == ()

    @given(tracestates)
    def test_round_trip(self, members: TraceStateMembers) -> None:
        text = format_tracestate(members)
        assert len(text) <= 512
        read = parse_tracestate(text.encode())
        assert read == tuple(member for member in members if member in read)
        if sum(len(key) + len(value) + 2 for key, value in members) <= 513:
            assert read == members


class TestWithMember:
    def test_new_goes_first(self) -> None:
        assert with_member((("a", "1"),), "b", "2") == (("b", "2"), ("a", "1"))

    def test_changed_moves_to_the_front_and_the_rest_keep_their_order(self) -> None:
        members = (("a", "1"), ("b", "2"), ("c", "3"))
        assert with_member(members, "b", "9") == (("b", "9"), ("a", "1"), ("c", "3"))

    def test_the_33rd_drops_the_right_most(self) -> None:
        members = tuple((f"k{n}", "v") for n in range(32))
        assert with_member(members, "own", "v") == (("own", "v"), *members[:-1])

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("", "1"),
            ("A", "1"),
            ("a", ""),
            ("a", "1 "),
            ("a", "1,b=2"),
            ("a=b", "1"),
            ("a", "1\r\nx: y"),
            ("a", "é"),
        ],
    )
    def test_refuses_what_cannot_be_written(self, key: str, value: str) -> None:
        with pytest.raises(ValueError, match="not a key and value for tracestate"):
            with_member((), key, value)

    @given(tracestates, keys, values)
    def test_ours_is_always_first_and_legal(self, members: TraceStateMembers, key: str, value: str) -> None:
        mutated = with_member(members, key, value)
        assert mutated[0] == (key, value)
        assert parse_tracestate(format_tracestate(mutated).encode()) == mutated


class TestLimitsOnOutput:
    def test_512_characters_are_kept_and_513_are_not(self) -> None:
        members = tuple((f"k{n}", "v" * 124) for n in range(4))
        assert len(format_tracestate(members)) == 4 * 127 + 3
        fits = (*members[:3], ("k3", "v" * 125))
        assert len(format_tracestate(fits)) == 512
        assert format_tracestate((*members[:2], ("k2", "v" * 125), ("k3", "v" * 125))) == format_tracestate(
            (*members[:2], ("k2", "v" * 125))
        )

    def test_members_over_128_characters_go_first_from_the_right(self) -> None:
        large = [(f"large{n}", "v" * 130) for n in range(4)]
        members = (large[0], ("a", "1"), large[1], large[2], ("b", "2"), large[3])
        assert format_tracestate(members) == format_tracestate(
            (large[0], ("a", "1"), large[1], large[2], ("b", "2"))
        )
        assert format_tracestate((*members, ("c", "v" * 120))) == format_tracestate(
            (large[0], ("a", "1"), large[1], ("b", "2"), ("c", "v" * 120))
        )

    def test_nothing_is_an_empty_header(self) -> None:
        assert format_tracestate(()) == ""


names = st.sampled_from([b"traceparent", b"TraceParent", b"tracestate", b"TRACESTATE", b"host"]) | st.binary()
contents = (
    st.binary()
    | st.just(PARENT.encode())
    | st.text("0123456789abcdef-ABFf \t").map(str.encode)
    | st.text("abc=1, \t@").map(str.encode)
)


@given(st.lists(st.tuples(names, contents) | st.lists(contents, min_size=2, max_size=2)))
def test_nothing_a_client_sends_raises(headers: list[tuple[bytes, bytes] | list[bytes]]) -> None:
    """... and what is read can be written, and read again as it was."""
    context = extract(headers)
    if context is not None:
        text = format_traceparent(context.trace_id, context.span_id, context.sampled, context.random)
        again = extract([*parent(text), (b"tracestate", format_tracestate(context.tracestate).encode())])
        assert again == context


class TestTrustedNetworks:
    @pytest.mark.parametrize("networks", ["", "  "])
    @pytest.mark.parametrize("host", ["10.0.0.1", "::1", None, "", "testclient"])
    def test_none_listed_trusts_all(self, networks: str, host: str | None) -> None:
        assert TrustedNetworks(networks)(host)

    @pytest.mark.parametrize(
        ("host", "trusted"),
        [
            ("10.0.0.1", True),
            ("10.255.255.255", True),
            ("11.0.0.1", False),
            ("192.0.2.7", True),
            ("192.0.2.8", False),
            ("::1", True),
            ("0:0:0:0:0:0:0:1", True),
            ("::2", False),
            ("::ffff:10.0.0.1", True),
            ("::ffff:11.0.0.1", False),
            ("fe80::1%eth0", True),
            (None, False),
            ("", False),
            ("testclient", False),
            ("10.0.0.1, 10.0.0.2", False),
            ("10.0.0.1" + " " * 100, False),
            ("\xff\x00", False),
        ],
    )
    def test_listed(self, host: str | None, trusted: bool) -> None:
        trust = TrustedNetworks("10.0.0.0/8, ::1,192.0.2.7 ,fe80::/10")
        assert trust(host) is trusted
        assert trust(host) is trusted

    @pytest.mark.parametrize(
        ("networks", "named"),
        [
            ("10.0.0.0/8, nonsense", "'nonsense' does not appear"),
            ("10.0.0.0/99", "'10.0.0.0/99' does not appear"),
            ("10.0.0.1/8", "10.0.0.1/8 has host bits set"),
            ("::1,", "'' does not appear"),
            (",", "'' does not appear"),
        ],
    )
    def test_a_malformed_entry_is_named(self, networks: str, named: str) -> None:
        with pytest.raises(ValueError, match=rf"{named}.*; write networks and addresses as in"):
            TrustedNetworks(networks)

    def test_lookups_are_cached_and_the_cache_is_bounded(self) -> None:
        trust = TrustedNetworks("10.0.0.0/8")
        for number in range(3000):
            trust(f"10.0.{number // 256}.{number % 256}")
        trust("10.0.11.183")
        cache = trust._is_inside.cache_info()
        assert cache.hits == 1
        assert cache.currsize == cache.maxsize == 1024

    @given(st.text())
    def test_no_host_raises(self, host: str) -> None:
        assert TrustedNetworks("203.0.113.0/24")(host) in {True, False}
