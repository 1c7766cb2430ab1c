"""``wherefrom dataset``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .conftest import make_span, make_trace, run

Write = Callable[..., None]
USER = {"role": "user", "content": "why?"}


def test_chats_become_lines_and_the_rest_is_counted(write: Write, tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "so"}
    for number, (asked, answered) in enumerate(
        (({"messages": [USER]}, answer), ({"q": 1}, 1), ({"q": 2}, 2)), 1
    ):
        span = make_span("root", None, 0, 5, inputs=asked, outputs=answered)
        write(make_trace(number, spans=[span]))
    file = tmp_path / "train.jsonl"
    told = run("dataset", "--output", str(file))
    assert json.loads(file.read_text()) == {"messages": [USER, answer]}
    assert "1 record in" in told.err
    assert "Left out: 2 traces without a conversation." in told.err
    printed = run("dataset", "name = 'nobody'", "--format", "mlflow")
    assert (printed.out, printed.err.strip()) == ("", "0 records.")
    refused = run("dataset", "--format", "csv")
    assert refused.code == 2
    assert "'csv'" in refused.err
