"""``wherefrom show``: one trace in full."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from .._sanitize import visible, visible_json
from .._units import full_moment
from ..exceptions import TraceNotFoundError, WherefromError
from .completion import complete_trace_id
from .help import Documented, Examples
from .opening import StoreOption, opened, store_url
from .terminal import Terminal, remark

if TYPE_CHECKING:
    from ..client import PagedList, TraceClient
    from ..model import Trace

_LATEST = "latest"
_HEX = re.compile(r"(?:tr-)?([0-9a-f]{1,32})")
_WHOLE = 32
_CANDIDATES = 5


class AmbiguousIdError(WherefromError, LookupError):
    """Several traces begin with what was given as an id."""


class ShowCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom show latest", "the newest trace"),
        ("wherefrom show 019ab4f0c2d17a3e", "the beginning of its id is enough"),
        ("wherefrom show 6f1c2d8e-...-9a41", "the X-Request-ID that the client got"),
        ("wherefrom show latest --json | jq .info", "for scripts"),
    )


def show(
    ctx: typer.Context,
    trace_id: Annotated[
        str,
        typer.Argument(
            metavar="TRACE_ID",
            help="The id of a trace or its beginning, a request id, or: latest",
            autocompletion=complete_trace_id,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As MLflow's trace JSON.")] = False,
    store: StoreOption = None,
) -> None:
    """Show one trace: who and wherefrom, its spans with a waterfall, and what went wrong."""
    from ..client import TraceClient

    with opened(store_url(ctx, store)) as opened_store:
        trace = find(TraceClient(opened_store), trace_id)
    if as_json:
        typer.echo(visible_json(trace.to_json(pretty=True)))
    else:
        _print(Terminal(), trace)


def find(client: TraceClient, wanted: str) -> Trace:
    """The trace that ``wanted`` names: the newest, one by its id or a beginning of it, or by its request id.

    Raises:
        TraceNotFoundError: there is none.
        AmbiguousIdError: several ids begin so.
    """
    if wanted == _LATEST:
        if newest := client.search_traces(max_results=1):
            return newest[0]
        raise TraceNotFoundError("the store holds no traces yet: send your app a request")
    by_id = _by_trace_id(client, wanted)
    trace = by_id[0] if len(by_id) == 1 else _by_request_id(client, wanted)
    if trace is not None:
        return trace
    if by_id:
        raise AmbiguousIdError(_several(wanted, by_id))
    raise TraceNotFoundError(
        f"no trace has an id that begins with {wanted!r}, nor that request id; `wherefrom search` lists them"
    )


def _by_trace_id(client: TraceClient, wanted: str) -> PagedList[Trace]:
    digits = _HEX.fullmatch(wanted.lower())
    if digits is None or len(digits[1]) == _WHOLE:
        named = f"tr-{digits[1]}" if digits else wanted
        return client.search_traces(None, f"trace_id = {_quoted(named)}", 1)
    return client.search_traces(None, f"trace_id LIKE 'tr-{digits[1]}%'", _CANDIDATES)


def _several(wanted: str, found: PagedList[Trace]) -> str:
    infos = [trace.info for trace in found]
    lines = [
        f"  {info.trace_id}  {full_moment(info.request_time)}  {visible(info.name or '')}" for info in infos
    ]
    more = ["  ..."] if found.token else []
    return "\n".join([f"several traces have an id that begins with {wanted!r}:", *lines, *more])


def _by_request_id(client: TraceClient, wanted: str) -> Trace | None:
    found = client.search_traces(None, f"client_request_id = {_quoted(wanted)}", 2)
    if len(found) > 1:
        remark("Several traces have this request id; the newest is shown.")
    return found[0] if found else None


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _print(terminal: Terminal, trace: Trace) -> None:
    from ..analysis.description import failures_of
    from .card import print_card
    from .failures import print_failures
    from .waterfall import print_waterfall

    print_card(terminal, trace)
    spans = trace.data.spans
    if spans:
        terminal.line()
        print_waterfall(terminal, spans)
        print_failures(terminal, failures_of(spans))
