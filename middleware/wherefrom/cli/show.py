"""``wherefrom show``: one trace in full, with its metadata, span tree, waterfall and errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from .._sanitize import visible, visible_json, visible_lines
from .._units import counted, duration, full_moment, spoken_moment
from ..exceptions import TraceNotFoundError, WherefromError
from ..model import Span, SpanStatusCode, SpanType, Trace
from .completion import complete_trace_id
from .options import StoreOption, examples, opened
from .search import state_text
from .terminal import Terminal, Wrapped, plain_table, remark, styled

if TYPE_CHECKING:
    from ..analysis.description import Failure
    from ..analysis.span_tree import Branch
    from ..client import TraceClient

SHOW_HELP: Final = examples(
    ("wherefrom show latest", "the newest trace"),
    ("wherefrom show 019ab4f0c2d17a3e", "a prefix of the trace id is enough"),
    ("wherefrom show 6f1c2d8e-...-9a41", "the X-Request-ID that the client received"),
    ("wherefrom show latest --json | jq .info", "for scripts"),
)
_HEX: Final = re.compile(r"(?:tr-)?([0-9a-f]{1,32})")
_WHOLE: Final = 32
_CANDIDATES: Final = 5
_VALUE_LINES: Final = 4
_PREVIEW_LINES: Final = 6
_MARKS: Final = {
    SpanStatusCode.OK: ("✓", "green"),
    SpanStatusCode.ERROR: ("✗", "bold red"),
    SpanStatusCode.UNSET: ("·", "dim"),
}
_OPEN_MARK: Final = ("…", "yellow")
_PIPE_BAR: Final = 40
_LEAST_BAR: Final = 12
_DEEPEST: Final = 12  # deeper spans are not indented further, or the bars have no room
_ROOM_FOR_START: Final = 100
_MOST_SERVICE: Final = 24
_FAILURES: Final = 5
_STACK_LINES: Final = 8
_RAISED: Final = 5
_MESSAGE_LINES: Final = 6


class AmbiguousIdError(WherefromError, LookupError):
    """Several trace ids have the given prefix."""


def show(
    ctx: typer.Context,
    trace_id: Annotated[
        str,
        typer.Argument(
            metavar="TRACE_ID",
            help="A trace id or a prefix of one, a request id, or: latest",
            autocompletion=complete_trace_id,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print MLflow's trace JSON.")] = False,
    store: StoreOption = None,
) -> None:
    """Show one trace: its metadata, its spans as a waterfall, and its errors."""
    from ..client import TraceClient

    with opened(ctx, store) as opened_store:
        trace = find(TraceClient(opened_store), trace_id)
    if as_json:
        typer.echo(visible_json(trace.to_json(pretty=True)))
        return
    from ..analysis.description import failures_of
    from .messages import conversation_of, print_conversation

    terminal = Terminal()
    conversation = conversation_of(trace)
    _print_card(terminal, trace, has_conversation=conversation is not None)
    if conversation is not None:
        print_conversation(terminal, conversation)
    if trace.data.spans:
        terminal.line()
        print_waterfall(terminal, trace)
        _print_failures(terminal, failures_of(trace.data.spans))


def find(client: TraceClient, wanted: str) -> Trace:
    """Find the trace that ``wanted`` names: the newest, or one by its id, a prefix of it, or its request id.

    Raises:
        TraceNotFoundError: there is none.
        AmbiguousIdError: several ids have this prefix.
    """
    from ..query.tree import quote

    if wanted == "latest":
        if newest := client.search_traces(max_results=1):
            return newest[0]
        raise TraceNotFoundError("the store holds no traces yet: send your app a request")
    digits = _HEX.fullmatch(wanted.lower())
    if digits is None or len(digits[1]) == _WHOLE:
        by_id = client.search_traces(None, f"trace_id = {quote(f'tr-{digits[1]}' if digits else wanted)}", 1)
    else:
        by_id = client.search_traces(None, f"trace_id LIKE 'tr-{digits[1]}%'", _CANDIDATES)
    if len(by_id) == 1:
        return by_id[0]
    if by_request := client.search_traces(None, f"client_request_id = {quote(wanted)}", 2):
        if len(by_request) > 1:
            remark("Several traces have this request id; the newest is shown.")
        return by_request[0]
    if by_id:
        infos = [trace.info for trace in by_id]
        lines = [
            f"  {one.trace_id}  {full_moment(one.request_time)}  {visible(one.name or '')}" for one in infos
        ]
        more = ["  ..."] if by_id.token else []
        raise AmbiguousIdError("\n".join([f"several trace ids begin with {wanted!r}:", *lines, *more]))
    raise TraceNotFoundError(
        f"no trace id begins with {wanted!r}, and no request id equals it; `wherefrom search` lists traces"
    )


def _print_card(terminal: Terminal, trace: Trace, *, has_conversation: bool) -> None:
    """Print everything about a trace except its spans."""
    from ..analysis.description import assessments_of, describe, tags_of

    info, took = trace.info, trace.duration_ns
    headline = styled(info.name or "unnamed trace", "bold").append("  ").append_text(state_text(trace))
    terminal.paragraph(headline.append("" if took is None else f"  {duration(took)}"))
    terminal.paragraph(styled(f"{info.trace_id}  {spoken_moment(info.request_time)}", "dim"))
    terminal.line()
    table = plain_table()
    table.add_column(no_wrap=True)
    table.add_column(max_width=None if terminal.room is None else max(terminal.room // 2, 12))
    table.add_column(overflow="fold")
    groups = [(group.title, [(pair.label, pair.value) for pair in group.pairs]) for group in describe(trace)]
    groups += [("Tags", list(tags_of(trace).items())), ("Feedback", list(assessments_of(trace)))]
    for title, pairs in groups:
        for at, (label, value) in enumerate(pairs):
            key = styled(label, "dim")
            key.no_wrap, key.overflow = True, "ellipsis"
            table.add_row(styled("" if at else title, "bold"), key, Wrapped(styled(value), _VALUE_LINES))
    terminal.show(table)
    for title, preview in (("Request", info.request_preview), ("Response", info.response_preview)):
        if preview and not has_conversation:
            terminal.title(f"{title} preview")
            terminal.paragraph("\n".join(visible_lines(preview)), indent=2, most=_PREVIEW_LINES)


def print_waterfall(terminal: Terminal, trace: Trace) -> None:
    """Print one line per span in tree order: its service if there are several, and a bar of when it ran."""
    from ..analysis.services import services_in
    from ..analysis.span_tree import branches_of

    spans = trace.data.spans
    _, services = services_in(trace)
    begin = min(span.start_time_ns for span in spans)
    end = max(max(span.start_time_ns, span.end_time_ns or 0) for span in spans)
    total = max(end - begin, 1)
    width = _PIPE_BAR if terminal.room is None else max(terminal.room * 2 // 5, _LEAST_BAR)
    has_start = terminal.room is None or terminal.room >= _ROOM_FOR_START
    table = plain_table(show_header=True)
    table.add_column("Spans", overflow="ellipsis", min_width=_LEAST_BAR)
    if services:
        table.add_column("service", no_wrap=True, overflow="ellipsis", max_width=_MOST_SERVICE)
    if has_start:
        table.add_column("start", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column(f"0{duration(total):>{width - 1}}", no_wrap=True)
    for branch in branches_of(spans):
        span = branch.span
        start = [Text(f"+{duration(span.start_time_ns - begin)}", style="dim")] if has_start else []
        service = [styled(services.get(span.span_id, ""), "cyan")] if services else []
        table.add_row(_name(branch), *service, *start, _took(span), _bar(span, begin, total, width))
    terminal.show(table)


def _name(branch: Branch) -> Text:
    span = branch.span
    mark, style = _MARKS[span.status.code] if span.end_time_ns is not None else _OPEN_MARK
    guides = ""
    if branch.lasts:
        guides = "└─ " if branch.lasts[-1] else "├─ "
        if branch.depth > _DEEPEST:
            guides = f"…{branch.depth} deep {guides}"
        else:
            guides = "".join("   " if is_last else "│  " for is_last in branch.lasts[:-1]) + guides
    kind = "" if span.span_type in {SpanType.UNKNOWN, ""} else f"  {span.span_type}"
    name = Text.assemble((mark, style), " ", (guides, "dim"), styled(span.name), styled(kind, "dim"))
    name.no_wrap, name.overflow = True, "ellipsis"
    return name


def _took(span: Span) -> Text:
    if span.end_time_ns is None:
        return Text("open", style="yellow")
    return Text(duration(span.end_time_ns - span.start_time_ns))


def _bar(span: Span, begin: int, total: int, width: int) -> Text:
    """Return at least one cell; the bar of an open span ends at the right edge."""
    first = min((span.start_time_ns - begin) * width // total, width - 1)
    last = width if span.end_time_ns is None else -((begin - span.end_time_ns) * width // total)
    length = min(max(last - first, 1), width - first)
    style = "red" if span.status.code is SpanStatusCode.ERROR else "blue"
    return Text.assemble(" " * first, ("━" * length, "yellow" if span.end_time_ns is None else style))


def _print_failures(terminal: Terminal, failures: list[Failure]) -> None:
    """Print the first failures; the JSON has all of them."""
    for failure in failures[:_FAILURES]:
        terminal.line()
        first, *rest = visible_lines(failure.message)
        colon = ": " if failure.kind and first else ""
        title = Text.assemble(
            styled(failure.kind, "bold red"), colon, (first, "" if failure.kind else "bold red")
        )
        terminal.paragraph(title, most=_MESSAGE_LINES)
        for line in rest[:_MESSAGE_LINES]:
            terminal.paragraph(line, indent=2)
        terminal.paragraph(styled("in " + ", then ".join(failure.spans), "dim"), indent=2, most=2)
        raised = failure.raised
        for own in raised[:1]:
            _print_frames(terminal, own.frames)
        for other in raised[1:_RAISED]:
            text = Text.assemble((f"{other.relation} ", "dim"), visible(other.title))
            terminal.paragraph(text, indent=2, most=2)
            _print_frames(terminal, other.frames)
        if len(raised) > _RAISED:
            more = counted(len(raised) - _RAISED, "more exception")
            terminal.line(f"  and {more}: use --json", style="dim")
    if len(failures) > _FAILURES:
        terminal.line()
        terminal.line(f"and {counted(len(failures) - _FAILURES, 'more error')}: use --json", style="dim")


def _print_frames(terminal: Terminal, frames: Sequence[str]) -> None:
    # Skip lines that underline part of the previous line: it may be truncated.
    lines = [shown for line in frames for shown in visible_lines(line) if line.strip(" ^~")]
    if len(lines) > _STACK_LINES:
        terminal.line("  ...", style="dim")
    for line in lines[-_STACK_LINES:]:
        terminal.paragraph(line, indent=2, style="dim", most=2)
