from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wherefrom import keys
from wherefrom.cli.app import app
from wherefrom.model import TraceState

from .conftest import HOSTILE, make_span, make_trace

Write = Callable[..., None]


def complete(*words: str) -> list[str]:
    """What bash is offered for the last of these words."""
    env = {
        "_WHEREFROM_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(["wherefrom", *words]),
        "COMP_CWORD": str(len(words)),
    }
    result = CliRunner().invoke(app, [], env=env, prog_name="wherefrom")
    assert result.stderr == ""
    return result.stdout.split("\n")[:-1] if result.stdout.strip() else []


@pytest.fixture
def traces(write: Write) -> None:
    spans = [make_span("root", None, 0, 120, name="GET /", attributes={"http.route": "/orders"})]
    write(
        make_trace(1, metadata={keys.APP_VERSION: "1.0.0", "tenant": "acme", "feature_flag_beam": "true"}),
        make_trace(2, state=TraceState.ERROR, experiment="shop", spans=spans),
    )


@pytest.mark.usefixtures("traces")
@pytest.mark.parametrize("command", ["search", "tail", "export", "sessions"])
def test_filters_are_completed_with_what_the_store_knows(command: str) -> None:
    assert complete(command, "\"metadata.app_version = '1") == [
        "metadata.app_version = '1.0.0'",
        "metadata.app_version = '1.1.0'",
    ]
    assert complete(command, "\"metadata.ten") == [
        f"metadata.tenant {operator}"
        for operator in [
            "=", "!=", ">", ">=", "<", "<=", "LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE", "RLIKE", "IN",
            "NOT IN", "IS NULL", "IS NOT NULL",
        ]
    ]  # fmt: skip
    assert complete(command, '"metadata.tenant = ') == ["metadata.tenant = 'acme'"]
    assert complete(command, '"span.attributes.http.route = ') == ["span.attributes.http.route = '/orders'"]
    assert complete(command, "\"status = 'E") == ["status = 'ERROR'"]
    assert complete(command, "\"span.status = 'U") == ["span.status = 'UNSET'"]
    assert "timestamp > '1h ago'" in complete(command, '"timestamp > ')
    assert "execution_time > '1s'" in complete(command, '"execution_time > ')
    assert complete(command, '"user = ') == ["user = 'alice'"]


@pytest.mark.usefixtures("traces")
def test_options_are_completed() -> None:
    assert complete("compare", "--where", '"user = ') == ["user = 'alice'"]
    assert complete("compare", "--by", "te") == ["tenant"]
    assert {"name", "user", "app_version", "experiment"} <= set(complete("versions", "--by", ""))
    assert complete("compare", "--baseline", "1.") == ["1.0.0", "1.1.0"]
    assert complete("compare", "--by", "tenant", "--baseline", "") == ["acme"]
    assert complete("compare", "--by", "nothing", "--baseline", "") == []
    assert complete("search", "--experiment", "") == ["default", "shop"]
    assert complete("flag", "be") == ["beam"]
    assert complete("export", "--to", "") == ["jsonl", "csv", "parquet", "mlflow", "mlflow+http://"]


@pytest.mark.usefixtures("traces")
def test_ids_are_completed() -> None:
    first, second = (f"000{number}" + "a" * 28 for number in (1, 2))
    assert complete("show", "") == ["latest", f"tr-{second}"[3:], first]
    assert complete("show", "l") == ["latest"]
    assert complete("show", "0001") == [first]
    assert complete("show", "tr-0002") == [f"tr-{second}"]
    assert complete("show", "tr-f") == []


def test_the_store_of_the_line_is_asked(write: Write, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(make_trace(1))
    monkeypatch.setenv("WHEREFROM_STORE", "none")
    url = f"sqlite:///{file}"
    assert complete("search", '"user = ') == []
    assert complete("--store", url, "search", '"user = ') == ["user = 'alice'"]
    assert complete("search", "--store", url, '"user = ') == ["user = 'alice'"]


def test_where_there_is_no_store_nothing_is_offered_and_nothing_made(file: Path) -> None:
    assert complete("search", '"sta') == []
    assert complete("show", "") == []
    assert not file.exists()


@pytest.mark.parametrize(
    "value",
    ["$(touch x)", "`touch x`", 'a"; touch x; "', "a'b", "!!", "*", "~", "a\\", "a|b", "a;b", HOSTILE],
)
def test_what_a_shell_would_run_is_never_offered(write: Write, value: str) -> None:
    """Values are untrusted input, and bash inserts completions unchanged."""
    trace = make_trace(
        1,
        metadata={keys.USER: value, "tenant": value, f"feature_flag_{value}": "x", value: "x"},
        experiment=value,
    )
    trace.info.tags[value] = value
    write(trace)
    assert complete("search", '"user = ') == []
    assert complete("search", '"metadata.tenant = ') == []
    assert all(value not in offer for offer in complete("search", '"metadata.'))
    assert complete("search", "--experiment", "") == []
    assert complete("flag", "") == []
    assert complete("compare", "--by", "tenant", "--baseline", "") == []
    assert all(value not in offer for offer in complete("compare", "--by", ""))


@pytest.mark.parametrize("value", ["acme corp", "-n", "GET /{id}"])
def test_some_values_are_for_filters_alone(write: Write, value: str) -> None:
    write(make_trace(1, metadata={"tenant": value}))
    assert complete("search", '"metadata.tenant = ') == [f"metadata.tenant = '{value}'"]
    assert complete("compare", "--by", "tenant", "--baseline", "") == []


def test_in_bash_itself(write: Write, tmp_path: Path) -> None:
    write(make_trace(1))
    (tmp_path / "wherefrom").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wherefrom "$@"\n')
    (tmp_path / "wherefrom").chmod(0o755)
    script = f"""
        export PATH="{tmp_path}:$PATH"
        eval "$(wherefrom --show-completion bash)"
        COMP_WORDS=(wherefrom search "\\"user = 'a") COMP_CWORD=2
        _wherefrom_completion wherefrom
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("user = 'alice'\n", "")
