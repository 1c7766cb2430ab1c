"""Settings: one table in code.

A value is taken from the first of: an argument, a ``WHEREFROM_*`` variable in the environment, one in
``.env``, the table ``[tool.wherefrom]`` in ``pyproject.toml``, the default. Both files are those of the
working directory.

``Settings.model_fields`` is the table. Behaviour, error messages, ``wherefrom doctor`` and the table in the
documentation are made from it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ._sanitize import without_secrets
from .exceptions import SettingsError
from .messages.prices import load_prices
from .propagation import TrustedNetworks

PREFIX: Final = "WHEREFROM_"
DOTENV: Final = ".env"
PYPROJECT: Final = "pyproject.toml"
_TABLE: Final = "[tool.wherefrom]"

_MAX_SHOWN: Final = 100
_CREDENTIALS = re.compile(r"://[^/@\s]*@")
_STORE = "sqlite:///"
_SERVERS = ("postgresql://", "postgres://", "clickhouse://", "chdb:///")
_BRIDGES = ("mlflow", "opentelemetry")
_EXPORTS = (
    "mlflow+http://", "mlflow+https://", "otlp:", "otlp+http://", "otlp+https://", "jsonl:///", "console:",
)  # fmt: skip
_MLFLOW = "mlflow"


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for item in value.split(",") if (part := item.strip()))
    return value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Rate = Annotated[float, Field(ge=0, le=1)]


def _setting(default: Any, takes: str, help_text: str, **limits: Any) -> Any:
    return Field(default, description=help_text, json_schema_extra={"takes": takes}, **limits)


class Settings(BaseSettings):
    """The configuration of Wherefrom in this process.

    Each setting is an argument, the variable ``WHEREFROM_`` + its name in upper case in the environment or in
    ``.env``, or a key of ``[tool.wherefrom]`` in ``pyproject.toml``; the first of these has precedence.

    Raises:
        SettingsError: a value cannot be used. The message names the variable, the value and what it takes.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    enabled: bool = _setting(True, "true or false", "Record traces.")
    store: str = _setting(
        "sqlite:///wherefrom.db",
        "`sqlite:///file.db`, `postgresql://host/database`, `clickhouse://host:8123/database`,"
        " `chdb:///folder` or `none`",
        "The store that traces are written to and read from; `none` to export only.",
    )
    export: CommaList = _setting(
        (),
        "a comma list of `mlflow+http(s)://host:5000?experiment=name`, `mlflow`, `otlp+http(s)://host:4318`,"
        " `otlp:`, `jsonl:///file` and `console:`",
        "Exporters: where traces are sent in addition to the store.",
    )
    bridges: CommaList = _setting(
        (),
        "a comma list of `mlflow` and `opentelemetry`",
        "Other tracers of the process that share the request's trace.",
    )
    instrument: CommaList = _setting(
        (),
        "`auto`, or a comma list of instrumentors' names",
        "OpenTelemetry's instrumentors to switch on, with its bridge; `auto` for all that are installed.",
    )
    experiment: str = _setting(
        "default", "a name", "The name under which this app's traces are stored.", min_length=1
    )
    sample_rate: Rate = _setting(1.0, "a number from 0 to 1", "The share of requests to record.")
    keep_errors: bool = _setting(True, "true or false", "Record failed requests, whatever the sample rate.")
    keep_slower_than_ms: float | None = _setting(
        None, "a number of milliseconds", "Record slower requests, whatever the sample rate.", ge=0
    )
    sample_routes: dict[str, Rate] = _setting(
        {}, "a JSON object of route template to rate", "Sample rates for single routes."
    )
    exclude: CommaList = _setting(
        (), "a comma list of path globs", "Paths of requests that are not traced and have no context."
    )
    header_metadata: dict[str, str | None] = _setting(
        {},
        "a JSON object of header to metadata key, or null",
        "Headers to record as metadata, in addition to the defaults; null removes a default.",
    )
    env_metadata: dict[str, str | None] = _setting(
        {},
        "a JSON object of variable to metadata key, or null",
        "Environment variables to record as metadata, in addition to the defaults; null removes a default.",
    )
    request_id_header: str = _setting(
        "X-Request-ID",
        "a header name",
        "The header of the request id, in requests and responses.",
        pattern=r"^[!#-'*+.^_`|~0-9A-Za-z-]+$",
    )
    echo_request_id: bool = _setting(True, "true or false", "Add the request id to responses.")
    upstream: Literal["link", "continue", "ignore"] = _setting(
        "link",
        "`link`, `continue` or `ignore`",
        "How a caller's `traceparent` is used: record a link, join the caller's trace, or ignore it.",
    )
    trust_upstream: Annotated[tuple[str, ...] | Callable[[Any], object], NoDecode] = _setting(
        (),
        "a comma list of networks (in code also a predicate on the ASGI scope)",
        "Callers whose trace may be joined; empty for all callers.",
    )
    trust_headers: Literal["all", "upstream"] = _setting(
        "all",
        "`all` or `upstream`",
        "Whose metadata headers (session, user, ...) to record: all callers', or those of `trust_upstream`.",
    )
    user_hash_key: SecretStr | None = _setting(
        None,
        "a secret that is not empty",
        "Record user ids as HMAC-SHA256 under this key.",
        min_length=1,
    )
    capture_bodies: bool = _setting(False, "true or false", "Record request and response bodies.")
    max_body_bytes: int = _setting(
        4096, "a number of bytes", "How much of each body is recorded.", ge=0, le=1_000_000
    )
    redact: CommaList = _setting(
        (
            "password", "passwd", "secret", "token", "api_key", "apikey", "authorization", "access_token",
            "refresh_token", "client_secret", "credit_card",
        ),
        "a comma list of names",
        "Names whose values are redacted, in addition to the built-in names.",
    )  # fmt: skip
    capture_headers: CommaList = _setting(
        (), "a comma list of headers", "Request and response headers to record."
    )
    max_metadata_length: int = _setting(
        8000, "a number of characters", "Longer metadata values are truncated.", ge=16, le=1_000_000
    )
    max_spans_per_trace: int = _setting(
        1000, "a number of spans", "Further spans of a trace are counted and not recorded.", ge=1
    )
    queue_size: int = _setting(
        10_000,
        "a number of traces",
        "How many traces may wait for one destination before traces are dropped.",
        ge=1,
    )
    queue_bytes: int = _setting(
        64_000_000,
        "a number of bytes",
        "How much memory waiting traces may use, for all destinations together, before traces are dropped.",
        ge=1,
    )
    flush_interval_ms: int = _setting(
        200, "a number of milliseconds", "How often waiting traces are written.", ge=1, le=60_000
    )
    shutdown_timeout: float = _setting(
        5.0, "a number of seconds", "How long a shutdown may wait until all traces are written.", ge=0
    )
    prices: str | None = _setting(
        None,
        "a JSON file of prices",
        "Prices of models, over those of the table that is shipped.",
        min_length=1,
    )
    retention_days: float | None = _setting(
        None, "a number of days", "Delete older traces from the store.", gt=0, le=36_500
    )
    max_store_mb: float | None = _setting(
        None,
        "a number of megabytes",
        "Delete the oldest traces when a SQLite store is larger.",
        ge=1,
        le=1_000_000_000,
    )
    server_timing: bool = _setting(
        False, "true or false", "Add the trace id to responses, in a `Server-Timing` header."
    )
    alerts: str | None = _setting(
        None,
        "a TOML file of rules",
        "Alert rules, which `wherefrom ui`, `wherefrom serve` and `wherefrom alert` evaluate.",
        min_length=1,
    )
    ui_token: SecretStr | None = _setting(
        None,
        "a secret that is not empty",
        "The token for access to the web UI and `wherefrom serve`.",
        min_length=1,
    )

    def __init__(self, **values: Any) -> None:
        _check_encodable(values)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_sentence(error, values)) from None
        except SettingsError:
            raise
        except (ValueError, RecursionError):  # the JSON of a variable cannot be decoded
            raise SettingsError(_json_sentence()) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - it rejects variables of others
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources of values, the first one has precedence."""
        variables = (_settings_of(source) for source in (env_settings, _open_dotenv(settings_cls)))
        given = [values for values in (*variables, _pyproject_table()) if values]
        return init_settings, *(InitSettingsSource(settings_cls, values) for values in given)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The settings as they may be printed: credentials in URLs are masked."""
        for name, value in super().__repr_args__():
            if isinstance(value, tuple):
                shown: Any = tuple(without_secrets(item) if isinstance(item, str) else item for item in value)
            else:
                shown = without_secrets(value) if isinstance(value, str) else value
            yield name, shown

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str) -> str:
        path = value.removeprefix(_STORE)
        if value == "none" or value.startswith(_SERVERS):
            return value
        if path in {"", value} or path.startswith(":"):
            raise ValueError(value)
        return value

    @field_validator("export")
    @classmethod
    def _known_exports(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(target == _MLFLOW or target.startswith(_EXPORTS) for target in value):
            raise ValueError(value)
        return value

    @field_validator("prices")
    @classmethod
    def _readable_prices(cls, value: str | None) -> str | None:
        try:
            load_prices(value)
        except SettingsError as error:
            raise ValueError(value) from error
        return value

    @field_validator("bridges")
    @classmethod
    def _known_bridges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not set(value) <= set(_BRIDGES):
            raise ValueError(value)
        return value

    @field_validator("trust_upstream", mode="plain")
    @classmethod
    def _networks_or_predicate(cls, value: Any) -> Any:
        if callable(value):
            return value
        try:
            networks = tuple(_split(value))
            TrustedNetworks(",".join(networks))
        except TypeError as error:
            raise ValueError(value) from error
        return networks


def _settings_of(source: PydanticBaseSettingsSource) -> dict[str, Any]:
    """The settings among the variables of a source, which itself takes milliseconds to look for all."""
    assert isinstance(source, EnvSettingsSource)
    found = {}
    for name, field in source.settings_cls.model_fields.items():
        if (PREFIX + name).lower() in source.env_vars:
            value, key, is_complex = source.get_field_value(field, name)
            found[key] = source.prepare_field_value(name, field, value, is_complex)
    return found


def _open_dotenv(settings_cls: type[BaseSettings]) -> DotEnvSettingsSource:
    try:
        return DotEnvSettingsSource(settings_cls, DOTENV, "utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError(f"{DOTENV} cannot be read: {error}") from None


def _pyproject_table() -> dict[str, Any]:
    try:
        content = Path(PYPROJECT).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError(f"{PYPROJECT} cannot be read: {error}") from None
    if b"wherefrom" not in content:  # most files: parsing one takes milliseconds
        return {}
    try:
        table = _parse_table(content)
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"{PYPROJECT} cannot be read: {error}") from None
    if not isinstance(table, dict):
        raise SettingsError(f"{_TABLE} in {PYPROJECT} is not a table")
    return table


@lru_cache(maxsize=1)
def _parse_table(content: bytes) -> Any:
    import tomllib

    return tomllib.loads(content.decode()).get("tool", {}).get("wherefrom", {})


def _is_ours(variable: str) -> bool:
    return variable.upper().startswith(PREFIX)


class Given(NamedTuple):
    """A value that is not a default, as text; ``origin`` is ``environment`` or the name of a file."""

    value: str
    origin: str


def given_settings() -> dict[str, Given]:
    """The values by variable, also of variables with our prefix that are no settings.

    Raises:
        SettingsError: a file cannot be read.
    """
    given = {
        PREFIX + name.upper(): Given(str(value), PYPROJECT) for name, value in _pyproject_table().items()
    }
    variables = ((_open_dotenv(Settings).env_vars, DOTENV), (os.environ, "environment"))
    for values, origin in variables:
        own = {name.upper(): value or "" for name, value in values.items()}
        given |= {name: Given(value, origin) for name, value in own.items() if _is_ours(name)}
    return given


@dataclass(frozen=True, slots=True)
class UnknownSetting:
    """A variable with our prefix that is not a setting, and the most similar setting or ``None``."""

    variable: str
    meant: str | None

    def __str__(self) -> str:
        meant = f"; did you mean {self.meant}?" if self.meant else ""
        return f"{self.variable} is not a setting of Wherefrom{meant}"


def unknown_settings() -> list[UnknownSetting]:
    """The variables of the environment and of the settings files that have our prefix but are not settings.

    Raises:
        SettingsError: a file cannot be read.
    """
    from difflib import get_close_matches

    known = {name.replace("_", "").upper(): PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(given_settings().keys() - set(known.values()))
    found = []
    for variable in unknown:
        word = variable.removeprefix(PREFIX).replace("_", "")
        close = get_close_matches(word, known, n=1, cutoff=0.6)
        found.append(UnknownSetting(variable, known[close[0]] if close else None))
    return found


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting, for display. ``default`` is the text to write in the variable."""

    name: str
    variable: str
    default: str
    takes: str
    help: str
    secret: bool


def setting_rows() -> Iterator[SettingRow]:
    """Yield the settings in the order of the code."""
    for name, info in Settings.model_fields.items():
        yield SettingRow(
            name=name,
            variable=PREFIX + name.upper(),
            default=_shown(info.default),
            takes=_takes(name),
            help=info.description or "",
            secret="SecretStr" in str(info.annotation),
        )


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def _check_encodable(arguments: Mapping[str, Any]) -> None:
    given = given_settings()
    for name in Settings.model_fields:
        variable = PREFIX + name.upper()
        value = arguments.get(name, given[variable].value if variable in given else None)
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise SettingsError(f"{variable} cannot be used: its value is not valid UTF-8") from None


def _takes(name: str) -> str:
    info = Settings.model_fields.get(name)
    extra = info.json_schema_extra if info else None
    return str(extra["takes"]) if isinstance(extra, dict) else ""


def _sentence(error: ValidationError, arguments: Mapping[str, Any]) -> str:
    """Return one sentence about the first error."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    file = "" if name in arguments else _file_of(PREFIX + name.upper())
    if first["type"] == "extra_forbidden":
        return f"{name!r}{file} is not a setting of Wherefrom; `wherefrom doctor` lists them"
    value = first.get("input")
    annotation = str(Settings.model_fields[name].annotation)
    shown = "(hidden)" if "SecretStr" in annotation else _shorten(value)
    where = "".join(f"[{part!r}]" for part in first["loc"][1:] if isinstance(part, str) and part != "[key]")
    limit = f" ({first['msg'].lower()})" if first["type"].startswith(("greater", "less")) else ""
    return f"{PREFIX}{name.upper()}{where}={shown}{file} cannot be used: it takes {_takes(name)}{limit}"


def _json_sentence() -> str:
    """Return the sentence for a variable whose JSON cannot be parsed."""
    given = given_settings()
    for name, info in Settings.model_fields.items():
        variable = PREFIX + name.upper()
        if variable in given and str(info.annotation).startswith("dict["):
            value, _ = given[variable]
            try:
                json.loads(value)
            except (ValueError, RecursionError):
                file = _file_of(variable)
                return f"{variable}={_shorten(value)}{file} cannot be used: it takes {_takes(name)}"
    return f"a {PREFIX}… variable cannot be used"


def _file_of(variable: str) -> str:
    given = given_settings().get(variable)
    return f" in {given.origin}" if given is not None and given.origin in {DOTENV, PYPROJECT} else ""


def _shorten(value: object) -> str:
    text = _CREDENTIALS.sub("://…@", repr(value))
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
