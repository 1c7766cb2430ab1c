"""``wherefrom db``: create, upgrade and print the tables of a store."""

from __future__ import annotations

from typing import Final

import typer

from .options import StoreOption, examples
from .terminal import remark

DB_HELP: Final = examples(
    ("wherefrom db upgrade --store postgresql://owner@db.internal/traces", "create or upgrade the tables"),
    ("wherefrom db schema --store clickhouse://host/traces", "the DDL, to read or to run by hand"),
    ("wherefrom db schema --store 'clickhouse://host/traces?cluster=main'", "the same for a cluster"),
    closing="Apps whose role may create tables do the same when they record their first trace.",
)


def upgrade(ctx: typer.Context, store: StoreOption = None) -> None:
    """Create the tables of the store, or upgrade them to this version. Any number may run at once."""
    from ..stores.opening import resolve

    with resolve(store or ctx.obj) as opened:
        version = opened.upgrade()
        remark(f"{opened.url} has schema version {version}.")


def schema(ctx: typer.Context, store: StoreOption = None) -> None:
    """Print the statements that make the tables of a ClickHouse store, without connecting to it."""
    from ..stores.opening import statements

    typer.echo(";\n\n".join(statements(store or ctx.obj)) + ";")
