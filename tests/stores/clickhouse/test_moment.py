from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.exceptions import FilterError
from wherefrom.stores.clickhouse.moment import Cursor, Moment

stamps = st.integers(0, 2**63 - 1)
moments = st.builds(
    lambda times: Moment(times[0], tuple(times[1:])), st.lists(stamps, min_size=1, max_size=9).map(sorted)
)
cursors = st.builds(Cursor, stamps, moments, st.none()) | st.builds(
    Cursor, stamps, moments, moments, st.tuples(stamps, stamps)
)


@given(cursor=cursors)
def test_a_cursor_reads_back_as_itself(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c1",
        "1.2",
        "c1.",
        "c1.2.3",
        "c1.2.3.4",
        "c1.2.3.4.5.6",
        "c1.-2",
        "c1.2-",
        "cA.1",
        "c1.é",
        "c1.2\n",
    ],
)
def test_another_text_is_no_cursor(text: str) -> None:
    with pytest.raises(FilterError, match="not one that a store returned"):
        Cursor.parse(text)


def test_a_cursor_beyond_all_stamps_is_bounded() -> None:
    """The server takes numbers of 64 bits."""
    far = "z" * 13
    cursor = Cursor.parse(f"c{far}.{far}-{far}.{far}.{far}.{far}")
    assert cursor.seen.last == 2**63 - 1
    assert cursor.reached == (2**63 - 1, 2**63 - 1)
