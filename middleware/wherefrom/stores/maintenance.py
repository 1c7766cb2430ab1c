"""The state of a store, checked without creating, migrating or changing it, and the space that it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._sanitize import without_secrets
from ..exceptions import StoreError
from .opening import locate


@dataclass(slots=True)
class Health:
    """The state of a store; ``problems`` are sentences, and a value that could not be read is ``None``.

    ``size`` includes the write-ahead log; ``free`` is what ``vacuum`` returns to the file system, in bytes.
    ``oldest`` and ``newest`` are ms since the epoch.
    """

    url: str
    file: str | None = None
    size: int | None = None
    free: int | None = None
    schema_version: int | None = None
    traces: int | None = None
    spans: int | None = None
    sources: int | None = None
    oldest: int | None = None
    newest: int | None = None
    journal_mode: str | None = None
    writable: bool | None = None
    integrity: str | None = None
    problems: list[str] = field(default_factory=list)


def examine(url: str) -> Health:
    """The health of the store at this URL."""
    health = Health(without_secrets(url))
    if url == "none":
        return health
    try:
        store = locate(url)
    except StoreError as error:
        health.problems.append(without_secrets(str(error)))
        return health
    found = store.health()
    health.file = None if store.path is None else str(store.path)
    health.problems += found.problems
    health.size, health.spans, health.journal_mode = found.size, found.spans, found.journal_mode
    health.writable, health.integrity = found.writable, found.integrity
    if (state := found.state) is not None:
        health.free, health.schema_version, health.traces = state.free, state.schema_version, state.traces
        health.sources, health.oldest, health.newest = state.sources, state.oldest, state.newest
    return health
