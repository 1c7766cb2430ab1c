"""What the doctor reports of metadata, settings, the store and the destinations."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from wherefrom import keys
from wherefrom.settings import setting_rows
from wherefrom.stores.sql.schema import SCHEMA_VERSION
from wherefrom.stores.sqlite.filesystem import file_system

from ..mlflow.server import free_port
from ..mlflow.stub import StubServer
from .conftest import HOSTILE, is_harmless, make_trace, run

Write = Callable[..., None]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory that is in no git work tree, and no variable of a build."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def as_json(*args: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run("doctor", "--json", *args).out)
    return report


def by(key: str, items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item[key]: item for item in items}


def test_a_store_in_order(write: Write, file: Path) -> None:
    write(make_trace(1), make_trace(2))
    result = run("doctor", width=80)
    assert result.code == 0
    assert result.lines[-1] == "No problems found."
    assert all(cell_len(line) <= 80 for line in result.lines)
    shown = re.sub(r" {2,}", "  ", re.sub(r"\n +", " ", result.out[result.out.index("\nStore\n") :]))
    for fact in (
        f"schema version  {SCHEMA_VERSION}",
        "content  2 traces, 2 spans, 1 source",
        "journal mode  wal",
        f"file system  {file_system(file)}",
        "writable  yes",
        "quick check  ok",
    ):
        assert fact in shown
    assert "oldest  2026-09-21 16:13:21.000 CEST" in shown
    assert "newest  2026-09-21 16:13:22.000 CEST" in shown
    store = as_json()["store"]
    assert store["file"] == str(file)
    assert store["size"] >= file.stat().st_size
    assert (store["traces"], store["spans"], store["sources"], store["writable"]) == (2, 2, 1, True)


def test_each_setting_with_where_it_came_from(
    write: Write, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    monkeypatch.setenv("WHEREFROM_SAMPLE_RATE", "0.25")
    monkeypatch.setenv("WHEREFROM_EXCLUDE", "/health,/metrics")
    monkeypatch.setenv("wherefrom_header_metadata", '{"X-Tenant-ID":"tenant_id"}')
    report = as_json("--store", f"sqlite:///{file}")
    settings = by("variable", report["settings"])
    assert settings.keys() == {row.variable for row in setting_rows()}
    assert settings["WHEREFROM_STORE"] == {
        "name": "store", "variable": "WHEREFROM_STORE", "value": f"sqlite:///{file}", "origin": "argument",
    }  # fmt: skip
    shown = {name: (settings[name]["value"], settings[name]["origin"]) for name in settings}
    assert shown["WHEREFROM_SAMPLE_RATE"] == ("0.25", "environment")
    assert shown["WHEREFROM_EXCLUDE"] == ("/health, /metrics", "environment")
    assert shown["WHEREFROM_HEADER_METADATA"] == ('{"X-Tenant-ID": "tenant_id"}', "environment")
    assert shown["WHEREFROM_QUEUE_SIZE"] == ("10000", "default")
    assert shown["WHEREFROM_ENABLED"] == ("true", "default")
    assert shown["WHEREFROM_RETENTION_DAYS"] == ("", "default")
    assert by("key", report["metadata"])["tenant_id"]["note"] == "set per request: header X-Tenant-ID"


def test_settings_in_files_are_shown_with_their_file(
    write: Write, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several sources the one with precedence; misspelt names in ``.env`` are pointed out."""
    write()
    (file.parent / ".env").write_text(
        "WHEREFROM_QUEUE_SIZE=7\nWHEREFROM_UI_TOKEN=hunter2\nWHEREFROM_QUEUE=1\n"
    )
    (file.parent / "pyproject.toml").write_text("[tool.wherefrom]\nqueue_size = 8\nexclude = ['/a', '/b']\n")
    monkeypatch.chdir(file.parent)
    report = as_json("--store", f"sqlite:///{file}")
    settings = by("variable", report["settings"])
    shown = {name: (settings[name]["value"], settings[name]["origin"]) for name in settings}
    assert shown["WHEREFROM_QUEUE_SIZE"] == ("7", ".env")
    assert shown["WHEREFROM_UI_TOKEN"] == ("********", ".env")
    assert shown["WHEREFROM_EXCLUDE"] == ("/a, /b", "pyproject.toml")
    assert [one["variable"] for one in report["unknown_variables"]] == ["WHEREFROM_QUEUE"]


def test_a_broken_file_of_settings_is_a_problem(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checks are made all the same."""
    (file.parent / "pyproject.toml").write_text("[tool.wherefrom\n")
    monkeypatch.chdir(file.parent)
    problems = as_json()["problems"]
    assert any(problem.startswith("pyproject.toml cannot be read: ") for problem in problems)


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREFROM_STORE", "postgresql://me:hunter2@db/wherefrom")
    monkeypatch.setenv("WHEREFROM_USER_HASH_KEY", "hunter2")
    monkeypatch.setenv("WHEREFROM_UI_TOKEN", "")
    for args in ((), ("--json",), ("--store", "mysql://me:hunter2@db/wherefrom")):
        result = run("doctor", *args)
        assert result.code == 1
        assert "********" in result.out
        assert "hunter2" not in result.out + result.err
    monkeypatch.setenv("WHEREFROM_QUEUE_SIZE", "-1")
    assert "hunter2" not in run("doctor").out


def test_a_setting_that_cannot_be_used_is_its_sentence(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(make_trace())
    monkeypatch.setenv("WHEREFROM_QUEUE_SIZE", "-1")
    result = run("doctor")
    assert result.code == 1
    assert result.lines[-1].startswith(
        "WHEREFROM_QUEUE_SIZE='-1' cannot be used: it takes a number of traces"
    )
    report = as_json()
    assert by("variable", report["settings"])["WHEREFROM_QUEUE_SIZE"]["value"] == "-1"
    assert report["store"]["traces"] == 1
    assert len(report["problems"]) == 1


def test_a_store_setting_that_cannot_be_used_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREFROM_STORE", "mysql://me:hunter2@db/x")
    report = as_json()
    (problem,) = report["problems"]
    assert problem.startswith("WHEREFROM_STORE='mysql://********@db/x' cannot be used")


def test_a_broken_setting_does_not_hide_the_default_store(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.delenv("WHEREFROM_STORE")
    monkeypatch.setenv("WHEREFROM_SAMPLE_RATE", "often")
    report = as_json()
    assert report["store"]["url"] == "sqlite:///wherefrom.db"
    assert report["store"]["file"] == str(file)


def test_variables_that_are_no_settings_are_pointed_out(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    monkeypatch.setenv("WHEREFROM_SAMPLERATE", "1")
    monkeypatch.setenv("WHEREFROM_" + "X" * 30, "1")
    result = run("doctor")
    assert result.code == 0
    assert (
        "WHEREFROM_SAMPLERATE is not a setting of Wherefrom; did you mean WHEREFROM_SAMPLE_RATE?"
        in result.out
    )
    assert "X is not a setting of Wherefrom\n" in result.out
    report = as_json()
    assert report["unknown_variables"][0] == {
        "variable": "WHEREFROM_SAMPLERATE",
        "meant": "WHEREFROM_SAMPLE_RATE",
    }
    assert len(report["warnings"]) == 2
    assert "No problems found" not in result.out


def test_a_destination_whose_folder_cannot_be_written(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file of JSON lines is checked without writing it; a ``~`` in its path is the home directory."""
    write()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHEREFROM_EXPORT", "jsonl:///~/lines.jsonl,jsonl:///~/none/lines.jsonl")
    report = as_json()
    assert [each["state"] for each in report["destinations"]] == ["writable", "unreachable"]
    problem = f"{tmp_path}/none/lines.jsonl cannot be written: there is no folder {tmp_path}/none"
    assert report["problems"] == [problem]
    assert not (tmp_path / "lines.jsonl").exists()


def test_each_metadata_value_with_where_it_came_from(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write()
    monkeypatch.setenv("APP_VERSION", "2.0")
    (tmp_path / "main.py").touch()
    out = run("doctor", "uvicorn", "main:app", "--port", "80", "--json").out
    rows = [re.split(r" {2,}", line.strip()) for line in out[: out.index("\nSettings\n")].splitlines()[1:]]
    facts = {row[0]: row[1:] for row in rows if row[0]}
    assert facts[keys.SOURCE_NAME] == ["main:app", "argument of uvicorn"]
    assert facts[keys.APP_VERSION] == ["2.0", "env APP_VERSION"]
    assert facts[keys.ENVIRONMENT] == ["development", "default (APP_ENVIRONMENT is not set)"]
    assert facts[keys.USER] == ["-", "set per request: header X-User-ID"]
    assert facts[keys.GIT_COMMIT][0] == "-"
    assert f"no .git above {tmp_path}" in facts[keys.GIT_COMMIT][1]


def test_without_a_command_the_app_is_asked_for(write: Write) -> None:
    write()
    name = by("key", as_json()["metadata"])[keys.SOURCE_NAME]
    assert name["value"] is None
    assert "wherefrom doctor uvicorn main:app" in name["note"]


def test_a_store_that_is_not_there_is_a_problem_and_is_not_made(file: Path) -> None:
    result = run("doctor")
    assert result.code == 1
    assert f"there is no store at {file}" in result.lines[-1]
    assert not file.exists()


def test_no_store_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREFROM_STORE", "none")
    result = run("doctor")
    assert result.code == 0
    assert "none: traces are only exported" in result.out


def test_files_that_are_no_store(file: Path, tmp_path: Path) -> None:
    file.touch()
    assert as_json()["problems"] == [f"{file} is an empty file"]
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
    assert as_json()["problems"] == [f"{file} is an SQLite file, but not a store of Wherefrom"]
    file.write_text("x" * 5000)
    assert as_json()["problems"] == [f"{file} cannot be read as a store: file is not a database"]
    (problem,) = as_json("--store", f"sqlite:///{tmp_path}")["problems"]
    assert "unable to open database file" in problem


def test_a_newer_schema(write: Write, file: Path) -> None:
    write()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE schema_version SET version = 99")
    (problem,) = as_json()["problems"]
    assert "schema version 99" in problem
    assert "upgrade wherefrom" in problem


def test_a_damaged_file(write: Write, file: Path) -> None:
    write(*(make_trace(number) for number in range(200)))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_traces_state'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as content:
        content.seek((page - 1) * size + 8)
        content.write(b"\xff" * 40)
    report = as_json()
    assert report["problems"]
    assert run("doctor").code == 1


def test_a_store_that_is_locked_cannot_be_written(write: Write, file: Path) -> None:
    write(make_trace())
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        report = as_json()
    assert report["store"]["writable"] is False
    assert report["store"]["traces"] == 1
    assert report["problems"] == [f"{file} cannot be written: database is locked"]
    result = run("doctor")
    assert result.code == 0


def test_space_that_can_be_given_back_is_named(write: Write) -> None:
    write(*(make_trace(number, request_preview="x" * 900) for number in range(200)))
    assert run("prune", "--older-than", "1s", "--yes").code == 0
    assert re.search(r"size +[\d.]+ kB, [\d.]+ kB of it free", run("doctor").out)


def test_what_strangers_set_is_shown_as_text(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    hostile = HOSTILE
    monkeypatch.setenv("APP_VERSION", hostile)
    monkeypatch.setenv("WHEREFROM_EXPERIMENT", hostile)
    monkeypatch.setenv("WHEREFROM_" + hostile, hostile)
    for args in ((), ("--json",), (hostile,)):
        assert is_harmless(run("doctor", *args).out)
    assert is_harmless(run("doctor", width=80).out)


@pytest.fixture
def server() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def _store_in_order(write: Write) -> None:
    write(make_trace(1))


def examined(monkeypatch: pytest.MonkeyPatch, *targets: str) -> dict[str, Any]:
    monkeypatch.setenv("WHEREFROM_EXPORT", ",".join(targets))
    report: dict[str, Any] = json.loads(run("doctor", "--json").out)
    return report


@pytest.mark.usefixtures("_store_in_order")
def test_an_mlflow_server_is_asked_and_sent_nothing(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.experiments["chat"] = "3"
    monkeypatch.setenv("WHEREFROM_EXPERIMENT", "new")
    targets = [f"mlflow+{server.url}?experiment=chat", f"mlflow+{server.url}"]
    report = examined(monkeypatch, *targets, "console:")
    assert [(each["target"], each["state"]) for each in report["destinations"]] == [
        (targets[0], "answers, and has the experiment 'chat'"),
        (targets[1], "answers, and will make the experiment 'new'"),
        ("console:", "not checked"),
    ]
    assert report["problems"] == []
    assert {asked.path for asked in server.asked} == {"/api/2.0/mlflow/experiments/get-by-name"}


@pytest.mark.usefixtures("_store_in_order")
def test_an_experiment_id_is_looked_for(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    report = examined(monkeypatch, f"mlflow+{server.url}")
    assert report["destinations"][0]["state"] == "answers, and has experiment 0"


@pytest.mark.usefixtures("_store_in_order")
def test_what_cannot_be_reached_or_used_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are not printed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    report = examined(monkeypatch, f"mlflow+http://ada:hunter2@127.0.0.1:{free_port()}", "mlflow")
    assert [each["state"] for each in report["destinations"]] == ["unreachable", "invalid"]
    first, second = report["problems"]
    assert "ConnectionRefusedError" in first
    assert second == "WHEREFROM_EXPORT=mlflow takes an http server in MLFLOW_TRACKING_URI, which is not set"
    assert "hunter2" not in json.dumps(report)
    result = run("doctor")
    assert result.code == 1
    assert "unreachable" in result.out
    assert "hunter2" not in result.out + result.err


@pytest.mark.usefixtures("_store_in_order")
def test_without_any_there_is_no_section() -> None:
    assert "Destinations" not in run("doctor").out


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_store_that_others_may_read_is_a_warning(write: Write, file: Path, suffix: str, mode: int) -> None:
    """The file, its log and its shared memory; the exit code stays 0."""
    write(make_trace())
    assert as_json()["warnings"] == []
    with closing(sqlite3.connect(file)) as connection:  # so that the log and the shared memory are there
        connection.execute("CREATE TABLE of_the_app (name TEXT)")
        connection.commit()
        shared = file.with_name(file.name + suffix)
        shared.chmod(mode)
        result = run("doctor", width=400)
        assert as_json()["problems"] == []
    assert result.code == 0
    assert f"other accounts of this machine can read {shared}: chmod 600 {shared}" in result.out


def test_instrumentors(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that is installed, and why it is off; they are switched on to know that."""
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    write()
    off = as_json()["instrumentors"]
    assert {each["why_off"] for each in off} == {"WHEREFROM_INSTRUMENT is not set"}
    monkeypatch.setenv("WHEREFROM_INSTRUMENT", "openai")
    try:
        result = run("doctor", width=150)
    finally:
        OpenAIInstrumentor().uninstrument()
    assert result.code == 0
    rows = {line.split()[1]: line.split(None, 3)[3] for line in result.lines if "-instrumentation-" in line}
    assert rows["opentelemetry-instrumentation-genai-openai"] == "on"
    other = "off: opentelemetry-instrumentation-genai-openai is on, for the same library"
    assert rows["openinference-instrumentation-openai"] == other
    assert (
        rows["opentelemetry-instrumentation-genai-anthropic"] == "off: WHEREFROM_INSTRUMENT does not name it"
    )
    monkeypatch.setenv("WHEREFROM_INSTRUMENT", "opnai")
    result = run("doctor", width=150)
    assert result.code == 1
    assert "WHEREFROM_INSTRUMENT='opnai' cannot be used: no instrumentor of this name" in result.out
