"""The metadata that all traces of this process share, each value with its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from .. import keys
from ..model import Source
from .build import BUILD_VARIABLES, build_facts
from .entrypoint import Entry, find_entry
from .facts import Fact, Process
from .git import GIT_KEYS, git_facts

ENV_METADATA: Final[Mapping[str, str]] = {
    "APP_ENVIRONMENT": keys.ENVIRONMENT,
    "APP_VERSION": keys.APP_VERSION,
    "DEPLOYMENT_ID": keys.DEPLOYMENT_ID,
    "REGION": keys.REGION,
}
"""Environment variables that become metadata, and the key of each."""

ENV_DEFAULTS: Final[Mapping[str, str]] = {
    keys.ENVIRONMENT: "development",
    keys.APP_VERSION: "development",
    keys.DEPLOYMENT_ID: "unknown",
    keys.REGION: "unknown",
}
"""What a key holds when none of its variables is set; a key that is not listed is then absent."""

SCHEMA_VERSION: Final = "3"
MAX_METADATA_LENGTH: Final = 8000  # the default of the setting
_MODEL_VARIABLES: Final = ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID")
_USER_VARIABLES: Final = ("LOGNAME", "USER", "LNAME", "USERNAME")  # in getpass.getuser's order


@dataclass(frozen=True, slots=True)
class Detected:
    """``source`` has every pair that was found; ``facts`` has every key, absent ones too, with its origin."""

    source: Source
    facts: tuple[Fact, ...]


def detect(
    process: Process | None = None,
    *,
    env_metadata: Mapping[str, str | None] | None = None,
    max_metadata_length: int = MAX_METADATA_LENGTH,
) -> Detected:
    """Detect the metadata of ``process``, by default this one. Raises nothing.

    ``env_metadata`` maps environment variables to keys and extends ``ENV_METADATA``; ``None`` instead of a
    key removes a variable. Values are stripped and truncated to ``max_metadata_length`` characters.

    It reads files, so call it at start-up and never in a request. The git facts of this process are cached.
    """
    seen = process or Process()
    entry = find_entry(seen)
    by_git = git_facts(entry.location, seen.environ) if process else _own_git_facts(entry.location)
    facts = {fact.key: fact for fact in _entry_facts(entry, seen.environ)}
    facts |= _version_facts(by_git, seen.environ)
    facts[keys.MODEL_ID] = _first_variable(keys.MODEL_ID, _MODEL_VARIABLES, seen.environ)
    facts[keys.OS_USER] = _user_fact(seen)
    facts[keys.SCHEMA_VERSION] = Fact(keys.SCHEMA_VERSION, SCHEMA_VERSION, "format of the trace")
    _add_environment(facts, env_metadata or {}, seen.environ)
    cleaned = tuple(fact.cleaned(max_metadata_length) for fact in facts.values())
    return Detected(Source({fact.key: fact.value for fact in cleaned if fact.key and fact.value}), cleaned)


@lru_cache(maxsize=8)
def _own_git_facts(location: str | None) -> Mapping[str, Fact]:
    return git_facts(location, Process().environ)


def _entry_facts(entry: Entry, environ: Mapping[str, str]) -> tuple[Fact, Fact]:
    if entry.name:
        name = Fact(keys.SOURCE_NAME, entry.name, entry.origin)
    else:
        name = Fact(keys.SOURCE_NAME, None, note=entry.origin)
    if environ.get("APP_ENVIRONMENT", "").strip():
        return name, Fact(keys.SOURCE_TYPE, environ["APP_ENVIRONMENT"], "env APP_ENVIRONMENT")
    return name, Fact(keys.SOURCE_TYPE, entry.kind, "kind of entry point", "APP_ENVIRONMENT is not set")


def _version_facts(by_git: Mapping[str, Fact], environ: Mapping[str, str]) -> dict[str, Fact]:
    """Return git's facts, completed by build-time variables for the same commit."""
    by_build = build_facts(environ, by_git[keys.GIT_COMMIT].value)
    facts = {}
    for key in GIT_KEYS:
        fact = by_git[key]
        facts[key] = by_build.get(key, fact) if fact.value is None else fact
    commit = facts[keys.GIT_COMMIT]
    if commit.value is None:
        names = [name for row in BUILD_VARIABLES for name in row.commit]
        note = f"{commit.note}, and none of {', '.join(names[:3])}, ... ({len(names)} variables) is set"
        facts[commit.key] = Fact(commit.key, None, note=note)
    return facts


def _first_variable(key: str, names: tuple[str, ...], environ: Mapping[str, str]) -> Fact:
    for name in names:
        if environ.get(name, "").strip():
            return Fact(key, environ[name], f"env {name}")
    return Fact(key, None, note=f"{' and '.join(names)} not set")


def _user_fact(process: Process) -> Fact:
    """Return the OS user as ``getpass`` finds it; ``uid:1234`` for an id without a passwd entry."""
    fact = _first_variable(keys.OS_USER, _USER_VARIABLES, process.environ)
    if fact.value is not None or process.uid is None:
        return fact
    try:
        import pwd

        return Fact(keys.OS_USER, pwd.getpwuid(process.uid).pw_name, "passwd entry of the process")
    except (ImportError, KeyError, OverflowError):
        return Fact(keys.OS_USER, f"uid:{process.uid}", "user id of the process", "it has no passwd entry")


def _add_environment(
    facts: dict[str, Fact], env_metadata: Mapping[str, str | None], environ: Mapping[str, str]
) -> None:
    """Add the values of variables, which override detected ones; use a default if there is nothing else."""
    for variable, key in {**ENV_METADATA, **env_metadata}.items():
        if not key:
            if removed := ENV_METADATA.get(variable):
                facts[removed] = Fact(removed, None, note=f"{variable} is removed by env_metadata")
        elif value := environ.get(variable, "").strip():
            facts[key] = Fact(key, value, f"env {variable}")
        elif key not in facts or (facts[key].value is None and key in ENV_DEFAULTS):
            default = ENV_DEFAULTS.get(key)
            facts[key] = Fact(key, default, "default" if default else "", f"{variable} is not set")
