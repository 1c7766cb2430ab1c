"""Settings: argument, environment, .env, pyproject.toml, default; a bad value is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from wherefrom import MemorySink, Settings, TraceMiddleware, WherefromError
from wherefrom.exceptions import SettingsError
from wherefrom.settings import Given, given_settings, setting_rows, unknown_settings

DEFAULTS = {
    "enabled": "true",
    "store": "sqlite:///wherefrom.db",
    "export": "",
    "bridges": "",
    "instrument": "",
    "experiment": "default",
    "sample_rate": "1.0",
    "keep_errors": "true",
    "keep_slower_than_ms": "",
    "sample_routes": "{}",
    "exclude": "",
    "header_metadata": "{}",
    "env_metadata": "{}",
    "request_id_header": "X-Request-ID",
    "echo_request_id": "true",
    "upstream": "link",
    "trust_upstream": "",
    "trust_headers": "all",
    "user_hash_key": "",
    "capture_bodies": "false",
    "max_body_bytes": "4096",
    "capture_headers": "",
    "max_metadata_length": "8000",
    "max_spans_per_trace": "1000",
    "queue_size": "10000",
    "queue_bytes": "64000000",
    "flush_interval_ms": "200",
    "shutdown_timeout": "5.0",
    "prices": "",
    "retention_days": "",
    "max_store_mb": "",
    "server_timing": "false",
    "alerts": "",
    "ui_token": "",
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in setting_rows():
        monkeypatch.delenv(row.variable, raising=False)


def test_the_defaults_are_the_contract_s() -> None:
    """One table in code holds every setting, its default, and what it takes."""
    rows = {row.name: row for row in setting_rows()}
    assert {name: row.default for name, row in rows.items() if name != "redact"} == DEFAULTS
    assert "password" in rows["redact"].default.split(",")
    assert all(row.help.endswith(".") and row.takes for row in rows.values())
    assert [name for name, row in rows.items() if row.secret] == ["user_hash_key", "ui_token"]
    assert all(row.variable == f"WHEREFROM_{row.name.upper()}" for row in rows.values())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_precedence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, environment, ``.env``, ``pyproject.toml``, default."""
    assert Settings().experiment == "default"
    (folder / "pyproject.toml").write_text("[tool.wherefrom]\nexperiment = 'from pyproject'\n")
    assert Settings().experiment == "from pyproject"
    (folder / ".env").write_text("WHEREFROM_EXPERIMENT='from .env'\n")
    assert Settings().experiment == "from .env"
    monkeypatch.setenv("WHEREFROM_EXPERIMENT", "from the environment")
    assert Settings().experiment == "from the environment"
    assert Settings(experiment="argument").experiment == "argument"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ENABLED", "false", False),
        ("ENABLED", "0", False),
        ("SAMPLE_RATE", "0.25", 0.25),
        ("KEEP_SLOWER_THAN_MS", "1500", 1500.0),
        ("SAMPLE_ROUTES", '{"/health": 0.01}', {"/health": 0.01}),
        ("EXCLUDE", " /health, ,/static/* ", ("/health", "/static/*")),
        ("EXCLUDE", "", ()),
        ("HEADER_METADATA", '{"X-A":"a", "X-User-ID": null}', {"X-A": "a", "X-User-ID": None}),
        ("EXPORT", "console:, jsonl:///t.jsonl", ("console:", "jsonl:///t.jsonl")),
        ("TRUST_UPSTREAM", "10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
        ("UPSTREAM", "continue", "continue"),
        ("STORE", "none", "none"),
    ],
)
def test_variables_are_read(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any) -> None:
    """Numbers, booleans, comma lists and JSON objects are written as one would expect."""
    monkeypatch.setenv(f"WHEREFROM_{name}", text)
    assert getattr(Settings(), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text", "takes"),
    [
        ("ENABLED", "perhaps", "true or false"),
        ("SAMPLE_RATE", "1.5", "a number from 0 to 1"),
        ("SAMPLE_RATE", "all", "a number from 0 to 1"),
        ("STORE", "mysql://x", "`sqlite:///file.db`"),
        ("STORE", "wherefrom.db", "`sqlite:///file.db`"),
        ("EXPORT", "kafka://x", "comma list"),
        ("SAMPLE_ROUTES", "/health", "a JSON object of route template to rate"),
        ("SAMPLE_ROUTES", '{"/health": 2}', "a JSON object of route template to rate"),
        ("HEADER_METADATA", "[1]", "a JSON object of header"),
        ("ENV_METADATA", "{", "a JSON object of variable"),
        ("UPSTREAM", "trust", "`link`, `continue` or `ignore`"),
        ("TRUST_UPSTREAM", "10.0.0.0/99", "a comma list of networks"),
        ("REQUEST_ID_HEADER", "X Request", "a header name"),
        ("REQUEST_ID_HEADER", "", "a header name"),
        ("QUEUE_SIZE", "0", "a number of traces"),
        ("FLUSH_INTERVAL_MS", "fast", "milliseconds"),
        ("RETENTION_DAYS", "0", "days"),
        ("MAX_BODY_BYTES", "-1", "bytes"),
        ("EXPERIMENT", "", "a name"),
        ("BRIDGES", "zipkin", ""),
    ],
)
def test_a_bad_value_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, takes: str
) -> None:
    """It names the variable, the value and what it takes, and stops start-up."""
    monkeypatch.setenv(f"WHEREFROM_{name}", text)
    with pytest.raises(SettingsError) as caught:
        Settings()
    message = str(caught.value)
    assert message.startswith(f"WHEREFROM_{name}")
    assert "cannot be used: it takes " in message
    assert takes in message
    assert text in message or repr(text) in message or "{" in text
    assert "\n" not in message
    assert isinstance(caught.value, (WherefromError, ValueError))


def test_an_unknown_argument_is_named() -> None:
    """A misspelt argument is an error, not a default."""
    with pytest.raises(SettingsError, match="'sample' is not a setting of Wherefrom"):
        Settings(sample=1)


def test_a_bad_argument_is_named_as_its_variable() -> None:
    """Arguments and variables are the same settings."""
    with pytest.raises(SettingsError, match=r"^WHEREFROM_SAMPLE_RATE=3 cannot be used"):
        Settings(sample_rate=3)


def test_secrets_never_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ``repr`` nor an error shows a secret."""
    monkeypatch.setenv("WHEREFROM_USER_HASH_KEY", "hush")
    settings = Settings(ui_token=SecretStr("hush"))
    assert "hush" not in repr(settings) + str(settings) + repr(settings.model_dump())
    with pytest.raises(SettingsError) as caught:
        Settings(user_hash_key=["hush"])
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_they_do_not_change() -> None:
    """Settings are read at start-up; an assignment later would be heard by half of the code."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().experiment = "x"


def test_a_table_has_the_types_of_toml(folder: Path) -> None:
    """Numbers, booleans, arrays and tables, besides the text of a variable."""
    (folder / "pyproject.toml").write_text("""
        [tool.wherefrom]
        enabled = false
        sample_rate = 0.5
        exclude = ["/health", "/metrics"]
        capture_headers = "x-a, x-b"
        trust_upstream = ["10.0.0.0/8"]
        ui_token = "hush"
        sample_routes = { "/chat" = 1, "/health" = 0.1 }
        [tool.wherefrom.header_metadata]
        "X-A" = "a"
    """)
    settings = Settings()
    assert (settings.enabled, settings.sample_rate) == (False, 0.5)
    assert settings.exclude == ("/health", "/metrics")
    assert settings.capture_headers == ("x-a", "x-b")
    assert settings.trust_upstream == ("10.0.0.0/8",)
    assert settings.ui_token == SecretStr("hush")
    assert settings.sample_routes == {"/chat": 1, "/health": 0.1}
    assert settings.header_metadata == {"X-A": "a"}


def test_objects_of_several_sources_are_merged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key by key; a value of the source with precedence wins."""
    (folder / "pyproject.toml").write_text("[tool.wherefrom.sample_routes]\n'/a' = 0.1\n'/b' = 0.2\n")
    monkeypatch.setenv("WHEREFROM_SAMPLE_ROUTES", '{"/b": 1, "/c": 0.3}')
    assert Settings().sample_routes == {"/a": 0.1, "/b": 1, "/c": 0.3}


def test_variables_of_others_in_a_file_are_ignored(folder: Path) -> None:
    """Other programs share ``.env``; a misspelt setting is reported by ``wherefrom doctor``."""
    (folder / ".env").write_text(
        "DATABASE_URL=postgres://x\nEXPERIMENT=x\nwherefrom_sample_rate=0.5\nWHEREFROM_X=1\n"
    )
    assert (Settings().experiment, Settings().sample_rate) == ("default", 0.5)
    assert given_settings() == {
        "WHEREFROM_SAMPLE_RATE": Given("0.5", ".env"),
        "WHEREFROM_X": Given("1", ".env"),
    }


@pytest.mark.parametrize(
    "content",
    ["", "[project]\nname = 'wherefrom'\n", "[tool]\nother = 'wherefrom'\n", "[tool.wherefrom]\n"],
)
def test_a_project_without_settings_changes_nothing(folder: Path, content: str) -> None:
    """A project that only depends on Wherefrom mentions it too."""
    (folder / "pyproject.toml").write_text(content)
    assert Settings() == Settings.model_construct(**Settings().model_dump())
    assert given_settings() == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (".env", b"WHEREFROM_SAMPLE_RATE=2\n", "WHEREFROM_SAMPLE_RATE='2' in .env cannot be used"),
        (".env", b"WHEREFROM_SAMPLE_ROUTES=[\n", "WHEREFROM_SAMPLE_ROUTES='[' in .env cannot be used"),
        (".env", b"A=\xff\n", ".env cannot be read: "),
        (
            "pyproject.toml",
            b"[tool.wherefrom]\nsample_rate = 2\n",
            "WHEREFROM_SAMPLE_RATE=2 in pyproject.toml ",
        ),
        ("pyproject.toml", b"[tool.wherefrom]\nsample = 1\n", "'sample' in pyproject.toml is not a setting"),
        ("pyproject.toml", b"[tool.wherefrom\n", "pyproject.toml cannot be read: "),
        ("pyproject.toml", b"tool = 'wherefrom'\n", "pyproject.toml cannot be read: "),
        ("pyproject.toml", b"tool.wherefrom = 1\n", "[tool.wherefrom] in pyproject.toml is not a table"),
        ("pyproject.toml", b"[tool.wherefrom]\n# \xff\n", "pyproject.toml cannot be read: "),
    ],
)
def test_a_bad_value_in_a_file_names_the_file(folder: Path, name: str, content: bytes, message: str) -> None:
    """One sentence, as for variables."""
    (folder / name).write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_argument_is_not_blamed_on_a_file(folder: Path) -> None:
    """Nor is a value that another source replaces an error."""
    (folder / ".env").write_text("WHEREFROM_SAMPLE_RATE=2\n")
    assert Settings(sample_rate=0.5).sample_rate == 0.5
    with pytest.raises(SettingsError, match=r"^WHEREFROM_SAMPLE_RATE=3 cannot be used"):
        Settings(sample_rate=3)


@pytest.mark.parametrize("name", [".env", "pyproject.toml"])
def test_a_directory_in_place_of_a_file_is_none(folder: Path, name: str) -> None:
    """It has no settings."""
    (folder / name).mkdir()
    assert Settings().experiment == "default"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("WHEREFROM_SAMPLERATE", "WHEREFROM_SAMPLE_RATE"),
        ("WHEREFROM_STORE_URL", "WHEREFROM_STORE"),
        ("WHEREFROM_EXPORTS", "WHEREFROM_EXPORT"),
        ("WHEREFROM_MAX_BODY", "WHEREFROM_MAX_BODY_BYTES"),
        ("wherefrom_Retention", "WHEREFROM_RETENTION_DAYS"),
        ("WHEREFROM_ZZZ", None),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_the_nearest_name_of_a_misspelt_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, variable: str, meant: str | None
) -> None:
    """What begins with our prefix and is no setting is found, with the setting that is closest."""
    monkeypatch.chdir(tmp_path)
    if place == ".env":
        Path(".env").write_text(f"{variable}=1\nOTHER=2\n")
    else:
        monkeypatch.setenv(variable, "1")
    (found,) = unknown_settings()
    assert (found.variable, found.meant) == (variable.upper(), meant)


def test_a_misspelt_one_is_a_warning_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fresh_process: None
) -> None:
    """Once, however many middlewares the process has, and also where settings are given in code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHEREFROM_SAMPLERATE", "0.1")
    for settings in (Settings(store="none"), None, None):
        TraceMiddleware(None, settings=settings, sink=MemorySink())  # type: ignore[arg-type] # never called
    assert [record.getMessage() for record in caplog.records] == [
        "WHEREFROM_SAMPLERATE is not a setting of Wherefrom; did you mean WHEREFROM_SAMPLE_RATE?"
    ]
