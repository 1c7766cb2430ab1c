"""The places that traces are sent to: whether they can be used, asked without sending anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .._sanitize import without_secrets
from ..exceptions import MissingExtraError, SettingsError, StoreError


@dataclass(frozen=True, slots=True)
class Destination:
    """One entry of the setting ``export``, without secrets; ``problem`` is ``None`` when it is in order."""

    target: str
    state: str
    problem: str | None = None


def examine_destinations(targets: Iterable[str], experiment: str) -> Iterator[Destination]:
    """What is known of each; a server that can be asked is asked. ``experiment`` is where traces go."""
    from ..exporters import open_exporter

    for target in targets:
        shown = without_secrets(target)
        try:
            sink: Any = open_exporter(target)
        except (SettingsError, MissingExtraError) as error:
            yield Destination(shown, "cannot be used", without_secrets(str(error)))
            continue
        check = getattr(sink, "check", None)
        if check is None:
            yield Destination(shown, "not asked")
            continue
        try:
            yield Destination(shown, check(experiment))
        except StoreError as error:
            yield Destination(shown, "does not answer", without_secrets(str(error)))
        finally:
            sink.close()
