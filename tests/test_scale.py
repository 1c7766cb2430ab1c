"""The page about scale has the figures that were measured, and so has its picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks import scale, search
from benchmarks.scale import Measured


def test_the_page_and_the_picture_have_the_figures_of_the_data() -> None:
    data = scale.read_data()
    page = scale.PAGE.read_text()
    wanted = "run: python -m benchmarks.scale --sizes"
    assert scale.with_tables(page, data) == page, wanted
    assert scale.PICTURE.read_text() == scale.draw(data), wanted


def test_each_store_is_measured_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are those of a real store; what is in the file is kept."""
    monkeypatch.setattr(scale, "DATA", tmp_path / "scale.json")
    monkeypatch.setattr(scale, "WARM_UP", 0)
    monkeypatch.setattr(search, "SPAN_OF_MS", 7_200_000)  # few hours to roll up
    scale.keep(Measured("postgresql", 300, cpu_us=200.0, server_cpu_us=50.0))
    url = f"sqlite:///{tmp_path}/traces.db"
    found = scale.measure("sqlite", url, 300, 1, None)
    assert found.bytes > 300
    assert found.cpu_us > 0
    assert found.p95.keys() == found.p50.keys() >= {"newest 100", "sessions", "compare by version over all"}
    scale.keep(found)
    asked = scale.measure("sqlite", url, 300, 1, None, is_filled=True)
    assert (asked.bytes, asked.cpu_us, asked.p95.keys()) == (found.bytes, found.cpu_us, found.p95.keys())
    first, second = scale.read_data()
    assert (first, second.all_cpu_us) == (found, 250.0)
    picture = ET.fromstring(scale.draw([first, second]))
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}circle"))) == len(found.p95)
