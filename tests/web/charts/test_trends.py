"""Panels over time."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from wherefrom.analysis.timeline import Trend, TrendPoint, Trends
from wherefrom.web.charts.timeline import Event
from wherefrom.web.charts.trends import draw_trends

from ..conftest import HOSTILE

MINUTE = 60_000
START = 1_790_000_040_000
SVG = "{http://www.w3.org/2000/svg}"


def trend(value: str | None, *points: tuple[int, int, float | None]) -> Trend:
    made = tuple(
        TrendPoint(START + at * MINUTE, traces, errors, ms, ms and 2 * ms, ms and 3 * ms)
        for at, (traces, errors, ms) in enumerate(points)
    )
    return Trend(value, sum(one.traces for one in made), sum(one.errors for one in made), made)


def test_each_measure_has_a_panel_and_each_value_a_line() -> None:
    """With gaps where nothing was measured, a line for a deployment, and the figures of each step."""
    one = trend("1.0", (10, 1, 5.0), (0, 0, None), (20, 0, 50.0))
    other = trend(HOSTILE.replace("\x00", ""), (5, 5, None), (0, 0, None), (0, 0, None))
    event = Event(START + MINUTE, "1.1", "/traces?x=1")
    drawing = draw_trends(Trends("app_version", MINUTE, (one, other), 0, ()), [event])
    root = ET.fromstring(f'<svg xmlns="http://www.w3.org/2000/svg">{drawing.__html__()}</svg>')
    words = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert [word for word in words if word in {"Requests", "Error rate", "p50", "p95", "p99"}] == [
        "Requests", "Error rate", "p50", "p95", "p99",
    ]  # fmt: skip
    paths = [path.attrib["d"] for path in root.iter(f"{SVG}path")]
    assert len(paths) == 10
    requests, rates = paths[0], paths[2]
    assert (requests.count("M"), requests.count("H")) == (1, 3)
    assert (rates.count("M"), rates.count("H")) == (2, 2)
    assert paths[5] == ""
    titles = [box[0].text or "" for box in root.iter(f"{SVG}rect")]
    assert len(titles) == 2
    assert titles[0].startswith("2026-09-21 14:14 UTC: ")
    seconds = draw_trends(Trends(None, 15_000, (trend(None, (10, 1, 5.0)),), 0, ()), []).__html__()
    assert "2026-09-21 14:14:00 UTC: 10 requests" in seconds
    assert "1.0 10 requests, 1 error, p50 5 ms, p95 10 ms, p99 15 ms; " in titles[0]
    assert sum("deployment" in line.attrib.get("class", "") for line in root.iter(f"{SVG}line")) == 1
    assert not list(root.iter(f"{SVG}script"))
    assert "\u202e" not in drawing.__html__()
    assert (drawing.data["start"], drawing.data["width"], drawing.data["bars"]) == (START, MINUTE, 3)
