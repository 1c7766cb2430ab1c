from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from wherefrom.analysis import compare
from wherefrom.stores import open_store
from wherefrom.web.charts import draw

from .conftest import HOSTILE, is_harmless, make_release, make_trace, run

Write = Callable[..., None]

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture
def plot(tmp_path: Path) -> Path:
    return tmp_path / "plot.svg"


def test_a_plot_tells_what_the_table_tells(write: Write, plot: Path) -> None:
    write(*make_release("1.0.0", 100), *make_release("1.1.0", 100, first=100, errors=50), make_trace(999))
    result = run("compare", "--plot", str(plot), "--where", "client_request_id != 'req-999'")
    assert result.code == 0
    assert result.err == f"The plot is in {plot}.\n"
    assert [path.name for path in plot.parent.iterdir() if "wherefrom.db" not in path.name] == ["plot.svg"]
    shown = texts(plot.read_text())
    assert "Traces by app_version: 1.1.0 is worse than 1.0.0" in shown
    assert any(
        text.startswith("1.1.0 is worse than 1.0.0: error rate 50.0 % against 0.0 %") for text in shown
    )
    assert "200 traces where client_request_id != 'req-999'" in shown
    assert shown.index("1.0.0") < shown.index("baseline") < shown.index("1.1.0") < shown.index("▲ worse")
    assert "100 traces, 50 errors" in shown
    assert {"0 %", "60 %", "0 ms", "Latency by app_version"} <= set(shown)
    assert "Requests ↑ and error rate ↓ by app_version, times in UTC" in shown


def test_a_plot_needs_nothing_else_to_be_looked_at(write: Write, plot: Path) -> None:
    write(*make_release("1.0.0", 100))
    run("versions", "--plot", str(plot))
    root = ET.fromstring(plot.read_text())
    assert root.tag == f"{SVG}svg"
    background = root.find(f"{SVG}rect")
    assert background is not None
    assert background.get("fill") == "#ffffff"
    assert "href" not in plot.read_text()


def test_values_of_strangers_are_only_text(write: Write, plot: Path) -> None:
    value = HOSTILE + "</text><script>alert(1)</script>&amp;\ufffe\x00"
    write(make_trace(1, name=value), make_trace(2, name="{title}"), make_trace(3, name="y" * 100))
    run(
        "compare", "--by", "name", "--plot", str(plot), "--where", f"name != '{HOSTILE.replace(chr(39), '')}'"
    )
    svg = plot.read_text()
    assert is_harmless(svg)
    root = ET.fromstring(svg)
    assert not list(root.iter(f"{SVG}script"))
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert any("</text><script>" in (title or "") for title in titles)
    assert any("{title}" in (title or "") for title in titles)
    assert "y" * 25 + "…" in texts(svg)


def test_what_is_left_out_is_noted(write: Write, plot: Path) -> None:
    write(*(make_trace(number, name=f"GET /{number}", experiment="shop") for number in range(101)))
    trace = make_trace(999, experiment="shop")
    trace.info.tags.clear()
    write(trace)
    run("compare", "--by", "name", "--experiment", "shop", "--plot", str(plot))
    note = texts(plot.read_text())[-1]
    assert note == (
        "verdicts at a corrected p-value below 0.05; 1 trace without name left out;"
        " 1 value with fewer traces left out"
    )
    assert "100 traces in shop" in texts(plot.read_text())


def test_traces_without_a_duration_have_no_latency(write: Write, file: Path) -> None:
    write(make_trace(1, execution_duration=None, spans=[]))
    found = compare(store=open_store(f"sqlite:///{file}"))
    assert "<path" not in draw(found)


def test_a_plot_that_cannot_be_written_is_one_sentence(write: Write, tmp_path: Path, file: Path) -> None:
    write(*make_release("1.0.0", 3))
    before = file.read_bytes()
    for path, said in (
        (tmp_path / "no" / "plot.svg", "No such file or directory"),
        (file, "is the store itself"),
    ):
        result = run("compare", "--plot", str(path))
        assert result.code == 1
        assert said in result.err
    assert file.read_bytes() == before


def test_latencies_far_apart_are_drawn_with_units(write: Write, plot: Path) -> None:
    write(make_trace(1, execution_duration=2, spans=[]), make_trace(2, execution_duration=90_000, spans=[]))
    run("compare", "--by", "client_request_id", "--plot", str(plot))
    assert {"1 ms", "100 ms", "10 s"} <= set(texts(plot.read_text()))


def test_a_name_that_ends_so_is_drawn_in_pixels(write: Write, tmp_path: Path) -> None:
    write(*make_release("1.0.0", 40))
    plot = tmp_path / "releases.PNG"
    assert run("versions", "--plot", str(plot)).code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_plot_marks_what_was_deployed(write: Write, plot: Path) -> None:
    write(*make_release("1.0.0", 40), *make_release("1.1.0", 40, first=40))
    run("compare", "--plot", str(plot))
    assert {"▾ 1.0.0", "▾ 1.1.0"} <= set(texts(plot.read_text()))
