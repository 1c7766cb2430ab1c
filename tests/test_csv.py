"""Rows of CSV."""

from __future__ import annotations

import csv
import io

from tests.analysis.traffic import make_trace
from wherefrom._csv import Layout, comma_separated


def test_a_carriage_return_starts_no_row() -> None:
    """A spreadsheet would read what follows it as the first cell of a row, maybe as a formula."""
    stream = io.StringIO(newline="")
    comma_separated(stream, Layout(()))([make_trace(1, name="GET /a\r=HYPERLINK(1)")])
    _, row = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert "GET /a\r=HYPERLINK(1)" in row
