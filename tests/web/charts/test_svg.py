"""SVG elements: untrusted text is escaped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from wherefrom.web.charts.svg import SERIES, STYLES, cut, element

from .svg import HOSTILE, named, parse


@given(st.text(), st.text())
def test_any_text_is_one_text_and_any_value_one_attribute(text: str, value: str) -> None:
    root = parse(element("g", element("title", text), aria_label=value))
    (group,) = named(root, "g")
    assert list(group.attrib) == ["aria-label"]
    assert [one.tag for one in root.iter()] == ["svg", "g", "title"]
    assert (group[0].text or "").isprintable()


def test_hostile_text_stays_readable() -> None:
    (title,) = named(parse(element("title", HOSTILE)), "title")
    assert title.text is not None
    assert title.text.startswith("</text><script>alert(1)</script>\"' onload=x &amp; \\u202e\\x00\\ufffe")


def test_numbers_are_short_and_what_is_none_is_left_out() -> None:
    assert element("line", x1=1.0, x2=1 / 3, y1=-0.5, href=None) == '<line x1="1" x2="0.33" y1="-0.5"/>'


def test_a_look_is_classes_and_what_they_stand_for() -> None:
    drawn = element("text", "x", style="muted strong", font_size=13)
    assert drawn == ('<text class="muted strong" fill="#57606a" font-size="13" font-weight="600">x</text>')
    assert isinstance(drawn, Markup)


def test_series_differ_by_more_than_colour() -> None:
    dashes = [STYLES[name]["stroke-dasharray"] for name in SERIES]
    assert len(set(dashes)) == len(SERIES)


def test_text_is_cut_where_it_is_shown() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"
    assert cut("\u202e" * 5, 8) == "\\u202e\\…"
