"""Switches on OpenTelemetry's instrumentors: packages that record the calls of one library as spans.

They are found by their entry points, as ``opentelemetry-instrument`` finds them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, Final

from .._capture.values import clean_text, safe_repr
from ..exceptions import SettingsError

AUTO: Final = "auto"
"""The name that means every instrumentor."""

_GROUP: Final = "opentelemetry_instrumentor"
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
# What instrumentations of web frameworks are built on: each request would get another server span, and a span
# for each ASGI message.
_SERVER_SPANS: Final = frozenset({"opentelemetry-instrumentation-asgi", "opentelemetry-instrumentation-wsgi"})
_OFFICIAL: Final = "github.com/open-telemetry/"
_PROJECT: Final = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Instrumentor:
    """An instrumentor that is installed. ``why_off`` is empty if it is on.

    ``is_problem`` is true if it is off and was to be on; not so under ``auto`` if its library is missing.
    """

    name: str
    package: str
    version: str
    why_off: str = ""
    is_problem: bool = False

    def __str__(self) -> str:
        state = f"off: {self.why_off}" if self.why_off else "on"
        return f"the instrumentor {self.name} of {self.package} {self.version} is {state}"


def installed_instrumentors(why_off: str) -> list[Instrumentor]:
    """Return all instrumentors, without importing any."""
    return [candidate.described(why_off) for candidate in _candidates()]


def switch_on(names: Sequence[str], **providers: Any) -> list[Instrumentor]:
    """Switch on instrumentors, and return all that are installed. One that is on stays so.

    Of several with one name, such as those of OpenTelemetry and OpenInference for ``openai``, one is switched
    on: the OpenTelemetry project's first.

    Args:
        names: Names of entry points or of packages, or ``auto``.
        providers: Passed to each instrumentor, such as ``tracer_provider=``.

    Raises:
        SettingsError: no instrumentor has one of the names.
    """
    candidates = _candidates()
    wanted = frozenset(map(_plain, names))
    _check(names, candidates)
    on: dict[str, str] = {}
    found = []
    # Those that are named by their packages come first: they are on, whatever else is for the same library.
    for candidate in sorted(candidates, key=lambda each: not each.is_named_by_package(wanted)):
        is_named = candidate.is_named(wanted)
        why_off = _why_unwanted(candidate, wanted, on)
        is_problem = False
        if not why_off:
            why_off, is_missing = _start(candidate, providers)
            is_problem = bool(why_off) and (is_named or not is_missing)
        if not why_off:
            on.setdefault(candidate.name, candidate.distribution.name)
        found.append(candidate.described(why_off, is_problem))
    return sorted(found, key=lambda each: (each.name, each.package))


@dataclass(frozen=True)
class _Candidate:
    """An entry point, and the package that has it."""

    entry: EntryPoint
    distribution: Distribution

    @cached_property
    def name(self) -> str:
        return _plain(self.entry.name)

    @cached_property
    def package(self) -> str:
        return _plain(self.distribution.name)

    @cached_property
    def is_official(self) -> bool:
        """Others, such as OpenLLMetry's, have names like those of the OpenTelemetry project."""
        about = self.distribution.metadata
        urls = [*(about.get_all("Project-URL") or ()), *(about.get_all("Home-page") or ())]
        return any(_OFFICIAL in url for url in urls)

    @cached_property
    def makes_server_spans(self) -> bool:
        needs = (need for need in self.distribution.requires or () if "extra" not in need)
        return any((match := _PROJECT.match(need)) and _plain(match[0]) in _SERVER_SPANS for need in needs)

    def is_named(self, names: Collection[str]) -> bool:
        return self.name in names or self.is_named_by_package(names)

    def is_named_by_package(self, names: Collection[str]) -> bool:
        """Whether ``opentelemetry-instrumentation-openai-v2``, say, is named, or ``openai-v2`` for it."""
        return any(
            name == self.package or (name != self.name and self.package.endswith(f"-instrumentation-{name}"))
            for name in names
        )

    def described(self, why_off: str, is_problem: bool = False) -> Instrumentor:
        package = self.distribution
        return Instrumentor(self.entry.name, package.name, package.version, why_off, is_problem)


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _candidates() -> list[_Candidate]:
    """Return the instrumentors by name, those of the OpenTelemetry project first."""
    entries = entry_points(group=_GROUP)
    # A package whose metadata is damaged has no name.
    found = [_Candidate(entry, entry.dist) for entry in entries if entry.dist and entry.dist.name]
    return sorted(found, key=lambda each: (each.name, not each.is_official, each.package))


def _check(names: Sequence[str], candidates: Sequence[_Candidate]) -> None:
    for name in names:
        if _plain(name) != AUTO and not any(each.is_named({_plain(name)}) for each in candidates):
            known = ", ".join(dict.fromkeys(each.entry.name for each in candidates)) or "none"
            raise SettingsError(
                f"WHEREFROM_INSTRUMENT={safe_repr(name)} cannot be used: no instrumentor of this name is"
                f" installed; installed are: {known}"
            )


def _why_unwanted(candidate: _Candidate, wanted: Collection[str], on: dict[str, str]) -> str:
    """Return why an instrumentor stays off before it is tried; empty if it is to be switched on."""
    is_named = candidate.is_named(wanted)
    disabled = set(map(_plain, os.environ.get(_DISABLED, "").split(",")))
    if not is_named and AUTO not in wanted:
        return "WHEREFROM_INSTRUMENT does not name it"
    if disabled & {"*", candidate.name}:
        return f"{_DISABLED} names it"
    if not is_named and candidate.makes_server_spans:
        return "auto leaves out instrumentors of web frameworks, as a request has its server span already"
    if candidate.name in on and not candidate.is_named_by_package(wanted):
        return f"{on[candidate.name]} is on, for the same library"
    return ""


def _start(candidate: _Candidate, providers: dict[str, Any]) -> tuple[str, bool]:
    """Switch one on; return why it stays off, and whether that is only a library that is not installed."""
    try:
        from opentelemetry.instrumentation import dependencies

        try:
            instrumentor = candidate.entry.load()()
        except ImportError:  # of the library, perhaps
            conflict = dependencies.get_dist_dependency_conflicts(candidate.distribution)
            if conflict is None:
                raise
        else:
            if instrumentor.is_instrumented_by_opentelemetry:
                return "", False
            conflict = dependencies.get_dependency_conflicts(instrumentor.instrumentation_dependencies())
        if conflict is None:
            instrumentor.instrument(skip_dep_check=True, **providers)
            return "", False
    except Exception as error:  # noqa: BLE001 - another package's failure
        return f"{type(error).__name__}: {clean_text(error, 500)}", False
    takes = _listed(conflict.required or getattr(conflict, "required_any", None))
    found = _listed(conflict.found or getattr(conflict, "found_any", None))
    return f"it takes {takes}, and {found or 'none'} is installed", not found


def _listed(needs: Any) -> str:
    """Return requirements without their markers."""
    items = [needs] if isinstance(needs, str) or not isinstance(needs, Collection) else needs
    return " or ".join(str(item).partition(";")[0].strip() for item in items if item)
