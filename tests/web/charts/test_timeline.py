"""Requests and error rates over time."""

from __future__ import annotations

import pytest

from wherefrom.analysis import Bucket, Timeline
from wherefrom.web.charts.timeline import Event, draw_timeline

from .svg import HOSTILE, named, number, numbers, parse, texts, with_class

MINUTE = 60_000
START = 1_700_000_000_000 // MINUTE * MINUTE


def make_timeline(*buckets: tuple[str, int, int, int], width: int = MINUTE) -> Timeline:
    return Timeline(
        "app_version", width, tuple(Bucket(v, START + width * at, n, e) for v, at, n, e in buckets)
    )


TWO = make_timeline(("1.0", 0, 100, 0), ("1.0", 1, 50, 5), ("1.1", 1, 50, 10), ("1.1", 3, 25, 0))


def test_bars_stand_at_their_times_and_have_one_scale() -> None:
    root = parse(draw_timeline(TWO, ["1.0", "1.1"]))
    bars = with_class(root, "requests")
    assert list(numbers(bars, "x")) == pytest.approx([2.5, 26.25, 26.25, 73.75])
    assert list(numbers(bars, "height")) == pytest.approx([34, 17, 17, 8.5])
    failed = with_class(root, "errors")
    assert list(numbers(failed, "height")) == pytest.approx([11, 22])
    above = {number(bar.get("y")) + number(bar.get("height")) for bar in bars}
    assert [number(one.get("y")) - 1 for one in failed] == sorted(above)


def test_what_a_strip_tells_in_words() -> None:
    root = parse(draw_timeline(TWO, ["1.0", "1.1", "none"]))
    assert texts(root)[:6] == [
        "1.0",
        "150 requests, 3.33 % failed",
        "1.1",
        "75 requests, 13.33 % failed",
        "none",
        "none",
    ]
    titles = [one.text for one in named(root, "title")]
    assert "1.1, 2023-11-14 22:14 UTC for 1 min: 50 requests, 10 errors (20 %)" in titles
    (description,) = named(root, "desc")
    assert description.text == "225 requests and 15 errors from 2023-11-14 22:13 UTC to 2023-11-14 22:17 UTC."


def test_a_bar_leads_to_its_traces() -> None:
    root = parse(draw_timeline(TWO, ["1.1"], link=lambda bucket: f"/traces?from={bucket.start}"))
    assert [link.get("href") for link in named(root, "a")] == [
        f"/traces?from={START + MINUTE}",
        f"/traces?from={START + 3 * MINUTE}",
    ]
    assert root.get("role") == "group"


def test_deployments_are_lines_with_names() -> None:
    events = [
        Event(START, "deploy-1", "/traces?d=1"),
        Event(START + MINUTE, HOSTILE),
        Event(START + 4 * MINUTE, "the last"),
        Event(START - 1, "before"),
    ]
    root = parse(draw_timeline(TWO, ["1.0"], events))
    lines = with_class(root, "deployment")
    assert number(lines[0].get("x1")) == 2.5
    flags = [one for one in with_class(root, "flag") if one.tag.endswith("text")]
    assert flags[0].get("text-anchor") == "start"
    assert "▾ deploy-1" in texts(root)
    assert "▾ before" not in texts(root)
    assert not named(root, "script")
    (description,) = named(root, "desc")
    assert "deploy-1 deployed 2023-11-14 22:13 UTC" in (description.text or "")


def test_names_do_not_run_into_each_other() -> None:
    timeline = make_timeline(("1.0", 0, 1, 0), ("1.0", 9, 1, 0))
    events = [Event(START + at, f"deployment-{at}") for at in range(5)]
    root = parse(draw_timeline(timeline, ["1.0"], events))
    flags = [one for one in with_class(root, "flag") if one.tag.endswith("text")]
    assert len({flag.get("y") for flag in flags}) == len(flags) == 3
    assert len(with_class(root, "deployment")) == 5


def test_a_name_at_the_end_is_set_before_its_line() -> None:
    timeline = make_timeline(("1.0", 0, 1, 0), ("1.0", 9, 1, 0), width=1000)
    root = parse(draw_timeline(timeline, ["1.0"], [Event(START + 9_900, "late")]))
    (flag,) = with_class(root, "flag")
    assert flag.get("text-anchor") == "end"
    titles = [one.text or "" for one in named(root, "title")]
    assert any("for 1 s: 1 request" in title for title in titles)
