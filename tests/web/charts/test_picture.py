"""The picture for a pull request."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from wherefrom.analysis import Bucket, Comparison, Timeline, Verdict
from wherefrom.web.charts import draw
from wherefrom.web.charts.distributions import choose_rows
from wherefrom.web.charts.picture import NoFontError, to_png
from wherefrom.web.charts.svg import FONT, element
from wherefrom.web.charts.timeline import Event

from .comparisons import judged, make_comparison, make_row
from .svg import HOSTILE, named, number, texts

START = 1_700_000_000_000
BOTH = make_comparison(make_row("1.0"), judged("1.1", Verdict.WORSE))


def read(comparison: Comparison, timeline: Timeline | None = None, *events: Event) -> ET.Element:
    return ET.fromstring(draw(comparison, timeline, events))


def test_it_tells_the_verdict_the_figures_and_how_they_came_about() -> None:
    timeline = Timeline("app_version", 1000, (Bucket("1.0", START, 5, 1), Bucket("1.1", START, 5, 1)))
    root = read(BOTH, timeline, Event(START, "deploy-42"))
    shown = texts(root)
    assert shown[0] == "Traces by app_version: 1.1 is worse than 1.0"
    assert shown[1] == "400 traces"
    assert "1.1 is worse than 1.0: for a reason." in shown
    assert {"baseline", "▲ worse", "200 traces, 20 errors", "▾ deploy-42", "Latency by app_version"} <= set(
        shown
    )
    assert shown[-1] == "verdicts at a corrected p-value below 0.05"


def test_it_needs_nothing_else() -> None:
    root = read(BOTH)
    (paper, *_) = named(root, "rect")
    assert paper.get("fill") == "#ffffff"
    assert (paper.get("width"), paper.get("height")) == (root.get("width"), root.get("height"))
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert not [
        one for one in root.iter() if one.get("style") or one.get("href") or one.tag.endswith("style")
    ]


def test_everything_lies_inside() -> None:
    rows = [judged(f"1.{n}", Verdict.NO_DIFFERENCE) for n in range(20)]
    root = read(make_comparison(make_row("1.0"), *rows))
    height = number(root.get("height"))
    assert all(number(one.get("y")) <= height for one in root if one.tag.endswith("text"))


@pytest.mark.parametrize("value", [HOSTILE, "{title}", "%s", "Ünï — 東京"])
def test_values_are_only_text(value: str) -> None:
    row = judged(value, Verdict.BETTER)
    timeline = Timeline(value, 1000, (Bucket(value, START, 5, 1),))
    root = read(
        make_comparison(make_row("1.0"), row, by=value, filter_string=value), timeline, Event(START, value)
    )
    assert not named(root, "script")
    assert not [one for one in root.iter() if "onload" in one.attrib]


def test_what_is_left_out_is_noted() -> None:
    root = read(make_comparison(make_row("1.0"), left_out=1, other_values=2, experiment="shop"))
    assert texts(root)[-1] == (
        "verdicts at a corrected p-value below 0.05; 1 trace without app_version excluded;"
        " 2 values with fewer traces excluded"
    )
    assert "200 traces in shop" in texts(root)


def test_without_durations_and_times_there_are_only_the_rows() -> None:
    root = read(make_comparison(make_row("1.0", p50=None, histogram=()), edges=()), Timeline("x", 1, ()))
    assert "Traces by app_version: nothing to compare with" in texts(root)
    assert "Latency by app_version" not in texts(root)


def test_few_traces_have_no_outline() -> None:
    root = read(make_comparison(make_row("1.0"), judged("1.1", Verdict.TOO_FEW)))
    assert texts(root).count("1.1") == 1
    assert "? too few traces" in texts(root)


def test_of_many_values_the_baseline_and_those_that_differ_are_drawn() -> None:
    alike = [judged(f"1.{n}", Verdict.NO_DIFFERENCE) for n in range(1, 9)]
    worse = judged("1.9", Verdict.WORSE)
    few = judged("2.0", Verdict.TOO_FEW)
    chosen = choose_rows(make_comparison(make_row("1.0"), worse, *alike, few), most=4)
    assert [row.value for row in chosen] == ["1.0", "1.9", "1.7", "1.8"]


SVG = draw(make_comparison(make_row("1.0"), judged(HOSTILE, Verdict.WORSE)))


def size(png: bytes) -> tuple[int, ...]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def test_a_picture_is_twice_as_large_in_pixels() -> None:
    width, height = size(to_png(SVG))
    assert width == 2000
    assert height > 500


def test_without_fonts_it_is_refused_rather_than_left_blank() -> None:
    with pytest.raises(NoFontError, match="none is installed"):
        to_png(SVG, ())


def test_a_machine_with_few_fonts_draws_without_serifs_if_it_can() -> None:
    """With a sans-serif family that the picture does not name, and with serifs if there is nothing else."""
    folder = Path("/usr/share/fonts/truetype")
    serif, sans = folder / "dejavu/DejaVuSerif.ttf", folder / "liberation/LiberationSansNarrow-Regular.ttf"
    if not (serif.exists() and sans.exists()):
        pytest.skip("needs the fonts DejaVu Serif and Liberation Sans Narrow")
    text = element("text", "Version", y=15, font_family=FONT)
    drawn = str(element("svg", text, xmlns="http://www.w3.org/2000/svg", width=90, height=20))
    assert to_png(drawn, (str(serif), str(sans))) == to_png(drawn, (str(sans),))
    assert to_png(drawn, (str(serif),)) != to_png(drawn, (str(sans),))


def test_without_the_renderer_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['resvg_py'] = None\n"
        "from wherefrom.web.charts.picture import to_png\n"
        "try: to_png('<svg/>')\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "a picture as PNG needs an optional dependency: pip install 'wherefrom[ui]'\n"
