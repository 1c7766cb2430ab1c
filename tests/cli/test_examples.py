from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wherefrom.cli import compare, export, flag, search, sessions, versions
from wherefrom.cli.help import WithExamples

from .conftest import make_release, run

Write = Callable[..., None]

COMMANDS: list[type[WithExamples]] = [
    search.SearchCommand,
    sessions.SessionsCommand,
    export.ExportCommand,
    compare.CompareCommand,
    versions.VersionsCommand,
    flag.FlagCommand,
]
# What sends traces to an MLflow server is tested where there is one.
EXAMPLES = [
    example for command in COMMANDS for example, _ in command.examples if "mlflow+http" not in example
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_help_shows_works(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    if "parquet" in example:
        pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    now = int(time.time() * 1000)
    write(
        *make_release("1.0.0", 3, metadata={"feature_flag_new_retriever": "true"}, request_time=now),
        *make_release("1.1.0", 3, first=3, metadata={"feature_flag_new_retriever": "false"}),
    )
    command = shlex.split(example.partition(" | ")[0])
    assert command[0] == "wherefrom"
    result = run(*command[1:])
    assert result.code == 0, result.err
