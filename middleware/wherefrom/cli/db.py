"""``wherefrom db``: create and upgrade the tables of a store."""

from __future__ import annotations

from typing import Final

import typer

from .options import StoreOption, examples
from .terminal import remark

DB_HELP: Final = examples(
    ("wherefrom db upgrade --store postgresql://owner@db.internal/traces", "create or upgrade the tables"),
    closing="Apps whose role may create tables do the same when they record their first trace.",
)


def upgrade(ctx: typer.Context, store: StoreOption = None) -> None:
    """Create the tables of the store, or upgrade them to this version. Any number may run at once."""
    from ..stores.opening import resolve

    with resolve(store or ctx.obj) as opened:
        version = opened.upgrade()
        remark(f"{opened.url} has schema version {version}.")
