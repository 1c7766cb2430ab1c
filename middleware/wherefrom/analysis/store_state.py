"""The state of a store, as a page shows it: how large it is, what it holds, and from when to when."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select

from ..stores import Store
from ..stores.sqlite.file import file_of
from ..stores.sqlite.schema import experiments, schema_version, sources, traces
from .scope import Scope, scope

_LOG: Final = "-wal"


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a store; sizes in bytes, times in ms since the epoch, ``None`` for what is not known.

    ``size`` counts the log beside the file too; ``free`` is how much of it is left over from what was
    deleted; ``disk_free`` is what is left on its disk.
    """

    kind: str
    location: str
    size: int
    free: int | None
    disk_free: int | None
    schema_version: int
    traces: int
    sources: int
    experiments: int
    oldest: int | None
    newest: int | None


def read_state(store: Store | str | None = None) -> State:
    """The state now.

    Raises:
        StoreError: the store cannot be opened or read.
    """
    with scope(store, None, None) as inside:
        path = None if isinstance(store, str) or store is None else file_of(store)
        time = traces.c.request_time
        return State(
            kind=inside.connection.dialect.name,
            location=str(path) if path is not None else inside.connection.engine.url.render_as_string(),
            size=_size(inside, path),
            free=_free(inside),
            disk_free=None if path is None else shutil.disk_usage(path.parent).free,
            schema_version=_one(inside, func.max(schema_version.c.version)),
            traces=_one(inside, func.count(traces.c.id)),
            sources=_one(inside, func.count(sources.c.id)),
            experiments=_one(inside, func.count(experiments.c.id)),
            oldest=_one(inside, func.min(time)),
            newest=_one(inside, func.max(time)),
        )


def _size(inside: Scope, path: Path | None) -> int:
    if path is not None:
        files = (path, path.with_name(path.name + _LOG))
        return sum(file.stat().st_size for file in files if file.exists())
    if inside.catalog.is_sqlite:
        return _pragma(inside, "page_count") * _pragma(inside, "page_size")
    return int(_one(inside, func.pg_database_size(func.current_database())))


def _free(inside: Scope) -> int | None:
    if not inside.catalog.is_sqlite:
        return None
    return _pragma(inside, "freelist_count") * _pragma(inside, "page_size")


def _pragma(inside: Scope, name: str) -> int:
    return int(inside.connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _one(inside: Scope, expression: Any) -> Any:
    return inside.connection.scalar(select(expression))
