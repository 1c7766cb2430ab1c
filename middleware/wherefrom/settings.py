"""Settings: one table in code, read from arguments, then ``WHEREFROM_*`` variables, then defaults.

``Settings.model_fields`` is that table: behaviour, error messages, ``wherefrom doctor`` and the table in the
README are all made from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .exceptions import SettingsError
from .propagation import TrustedNetworks

PREFIX: Final = "WHEREFROM_"

_CREDENTIALS = re.compile(r"://[^/@\s]*@")
_STORE = "sqlite:///"
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
    """How Wherefrom behaves in this process.

    Each setting is an argument of the same name, or the variable ``WHEREFROM_`` + its name in upper case.

    Raises:
        SettingsError: a value cannot be used; one sentence names the variable, the value and what it takes.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    enabled: bool = _setting(True, "true or false", "Record traces at all.")
    store: str = _setting(
        "sqlite:///wherefrom.db",
        "`sqlite:///file.db` or `none`",
        "Where traces are kept and read; `none` to only export.",
    )
    export: CommaList = _setting(
        (),
        "a comma list of `mlflow+http(s)://host:5000?experiment=name`, `mlflow`, `otlp+http(s)://host:4318`,"
        " `otlp:`, `jsonl:///file` and `console:`",
        "Where traces are sent besides.",
    )
    bridges: CommaList = _setting(
        (),
        "a comma list of `mlflow` and `opentelemetry`",
        "Other tracers to keep inside our request.",
    )
    experiment: str = _setting(
        "default", "a name", "The name under which this application's traces are kept.", min_length=1
    )
    sample_rate: Rate = _setting(1.0, "a number from 0 to 1", "The share of requests to keep.")
    keep_errors: bool = _setting(
        True, "true or false", "Keep a request that failed, whatever the sample rate said."
    )
    keep_slower_than_ms: float | None = _setting(
        None, "milliseconds", "Keep a request slower than this, whatever the sample rate said.", ge=0
    )
    sample_routes: dict[str, Rate] = _setting(
        {}, "a JSON object of route template to rate", "Sample rates of single routes."
    )
    exclude: CommaList = _setting(
        (), "a comma list of path globs", "Requests to leave alone: no trace, no context."
    )
    header_metadata: dict[str, str | None] = _setting(
        {},
        "a JSON object of header to metadata key, or null",
        "Headers to record, added to the defaults; null removes one.",
    )
    env_metadata: dict[str, str | None] = _setting(
        {},
        "a JSON object of variable to metadata key, or null",
        "Variables to record, added to the defaults; null removes one.",
    )
    request_id_header: str = _setting(
        "X-Request-ID",
        "a header name",
        "Carries the request id, both ways.",
        pattern=r"^[!#-'*+.^_`|~0-9A-Za-z-]+$",
    )
    echo_request_id: bool = _setting(True, "true or false", "Send the request id with the response.")
    upstream: Literal["link", "continue", "ignore"] = _setting(
        "link",
        "`link`, `continue` or `ignore`",
        "What to do with a caller's `traceparent`: keep it as a link, join its trace, or nothing.",
    )
    trust_upstream: Annotated[tuple[str, ...] | Callable[[Any], object], NoDecode] = _setting(
        (),
        "a comma list of networks (in code also a predicate on the ASGI scope)",
        "Callers whose trace may be joined; empty for all.",
    )
    trust_headers: Literal["all", "upstream"] = _setting(
        "all",
        "`all` or `upstream`",
        "Whose session, user and other metadata headers to record: everyone's, or those of `trust_upstream`.",
    )
    user_hash_key: SecretStr | None = _setting(
        None,
        "a secret that is not empty",
        "Keep user ids only as HMAC-SHA256 under this key.",
        min_length=1,
    )
    capture_bodies: bool = _setting(False, "true or false", "Record request and response bodies.")
    max_body_bytes: int = _setting(4096, "bytes", "How much of a body to record.", ge=0, le=1_000_000)
    redact: CommaList = _setting(
        (
            "password", "passwd", "secret", "token", "api_key", "apikey", "authorization", "access_token",
            "refresh_token", "client_secret", "credit_card",
        ),
        "a comma list of JSON keys",
        "Keys whose values are not recorded in bodies, whatever their case.",
    )  # fmt: skip
    capture_headers: CommaList = _setting(
        (), "a comma list of headers", "Request and response headers to record."
    )
    max_metadata_length: int = _setting(
        8000, "characters", "Longer metadata values are cut.", ge=16, le=1_000_000
    )
    max_spans_per_trace: int = _setting(
        1000, "a number of spans", "Further spans of a trace are counted, not recorded.", ge=1
    )
    queue_size: int = _setting(
        10_000, "a number of traces", "How many traces wait for the store before new ones are dropped.", ge=1
    )
    queue_bytes: int = _setting(
        64_000_000,
        "bytes",
        "How much memory waiting traces may take, for all destinations together, before some are dropped.",
        ge=1,
    )
    flush_interval_ms: int = _setting(
        200, "milliseconds", "How often waiting traces are written.", ge=1, le=60_000
    )
    shutdown_timeout: float = _setting(
        5.0, "seconds", "How long the process may take at its end to write what waits.", ge=0
    )
    retention_days: float | None = _setting(
        None, "days", "Delete older traces from the store.", gt=0, le=36_500
    )
    server_timing: bool = _setting(
        False, "true or false", "Send the trace id to browsers in a `Server-Timing` header."
    )
    ui_token: SecretStr | None = _setting(
        None,
        "a secret that is not empty",
        "Opens the page, and `wherefrom serve`, to who has it.",
        min_length=1,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from None
        except ValueError as error:  # pydantic-settings could not decode the JSON of a variable
            raise SettingsError(_json_sentence(error)) from None

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str) -> str:
        path = value.removeprefix(_STORE)
        if value != "none" and (path in {"", value} or path.startswith(":")):
            raise ValueError(value)
        return value

    @field_validator("export")
    @classmethod
    def _known_exports(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(target == _MLFLOW or target.startswith(_EXPORTS) for target in value):
            raise ValueError(value)
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


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting, for people: ``default`` is what one would write in the variable."""

    name: str
    variable: str
    default: str
    takes: str
    help: str
    secret: bool


def setting_rows() -> Iterator[SettingRow]:
    """The table of settings, in the order of the code."""
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


def _takes(name: str) -> str:
    info = Settings.model_fields.get(name)
    extra = info.json_schema_extra if info else None
    return str(extra["takes"]) if isinstance(extra, dict) else ""


def _sentence(error: ValidationError) -> str:
    """One sentence about the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"{name!r} is not a setting of Wherefrom; `wherefrom doctor` lists them"
    value = first.get("input")
    annotation = str(Settings.model_fields[name].annotation)
    shown = "(hidden)" if "SecretStr" in annotation else _CREDENTIALS.sub("://…@", repr(value))
    where = "".join(f"[{part!r}]" for part in first["loc"][1:] if isinstance(part, str) and part != "[key]")
    limit = f" ({first['msg'].lower()})" if first["type"].startswith(("greater", "less")) else ""
    return f"{PREFIX}{name.upper()}{where}={shown} cannot be used: it takes {_takes(name)}{limit}"


def _json_sentence(error: ValueError) -> str:
    """The sentence for a variable whose JSON cannot be read; pydantic-settings names the field in its own."""
    name = next((field for field in Settings.model_fields if f'"{field}"' in str(error)), "")
    variable = PREFIX + name.upper()
    return f"{variable}={os.environ.get(variable, '')!r} cannot be used: it takes {_takes(name)}"
