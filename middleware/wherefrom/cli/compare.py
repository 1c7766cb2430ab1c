"""``wherefrom compare``, ``versions`` and ``flag``: a table with a verdict on each value, and a chart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from .._sanitize import visible
from .._units import counted, duration, full_moment, short_moment
from .completion import complete_baseline, complete_flag
from .formats import replacing
from .options import (
    ByOption,
    ExperimentOption,
    FilterArgument,
    JsonOption,
    PlotOption,
    SinceOption,
    StoreOption,
    WhereOption,
    examples,
    narrowed,
    opened,
    option,
    print_misses,
)
from .terminal import Column, Terminal, hint, print_json, print_table, remark, styled

if TYPE_CHECKING:
    from ..analysis import Comparison, ErrorDifference, LatencyDifference, Regression, Row, TailDifference
    from ..stores import Store

_READING: Final = (
    "The interval is the 95 % confidence interval of the error rate. A verdict needs 30 traces of each value"
    " and a corrected p-value below 0.05; a latency must also differ by 5 %. Use --json for every figure."
)
COMPARE_HELP: Final = examples(
    ("wherefrom compare", "is the newest release worse than earlier ones?"),
    ("wherefrom compare --baseline 1.0.0 --plot releases.png", "compare with 1.0.0 and write a chart"),
    ("wherefrom compare --by region --since 2h", "which region is worse?"),
    ("wherefrom compare --by name \"metadata.app_version = '1.1.0'\"", "which route is worse?"),
    ("wherefrom compare --json | jq '.rows[] | {value, verdict}'", "for scripts"),
    closing=_READING,
)
VERSIONS_HELP: Final = examples(
    ("wherefrom versions", "each release against the one before it"),
    ("wherefrom versions --by mlflow.source.git.commit", "by commit"),
    ("wherefrom versions \"metadata.region = 'eu'\" --plot releases.svg", "and write a chart"),
    ("wherefrom versions --json | jq '.regressions'", "for scripts"),
    closing=f"A release with too few traces is skipped as the previous release. {_READING}",
)
FLAG_HELP: Final = examples(
    ("wherefrom flag new_retriever", "is it better with the flag on?"),
    ("wherefrom flag new_retriever \"metadata.app_version = '1.1.0'\"", "in one release"),
    ("wherefrom flag new_retriever --json | jq -r '.rows[].verdict'", "for scripts"),
    closing=f"An app records flags with wherefrom.record_feature_flag(name, value). {_READING}",
)
VERDICT_STYLES: Final = {"worse": "bold red", "better": "bold green", "too few traces": "yellow"}
_MARKS: Final = {"worse": "✗ ", "better": "✓ "}
_SMALLEST_P: Final = 0.0001
_REGRESSIONS: Final = 5
_SENTENCE_LINES: Final = 6
_NEEDS_NO_QUOTES: Final = re.compile(r"[^\"$`\\!]*")


StratifyOption = Annotated[
    str,
    option(
        "--stratify", "KEY", "Compare only traces with the same value of this key, or 'none': all with all."
    ),
]
SequentialOption = Annotated[
    bool,
    typer.Option("--sequential", help="Use tests that stay valid when you compare again and again."),
]


def key_of(stratify: str) -> str | None:
    """The key that traces are stratified by; ``None`` for ``none``."""
    return None if stratify == "none" else stratify


def compare(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    by: ByOption = "app_version",
    baseline: Annotated[
        str | None,
        option(
            "--baseline", "VALUE", "Value to compare with. The default is the first seen.", complete_baseline
        ),
    ] = None,
    since: SinceOption = None,
    where: WhereOption = None,
    stratify: StratifyOption = "name",
    sequential: SequentialOption = False,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Compare traces by one value: error rates, latencies, and a verdict on each value."""
    from .. import analysis

    chosen = narrowed(filter_string, where, since=since)
    with opened(ctx, store) as used:
        _show(
            used,
            lambda: analysis.compare(
                by,
                chosen,
                baseline=baseline,
                experiment=experiment,
                store=used,
                stratify=key_of(stratify),
                sequential=sequential,
            ),
            plot,
            as_json,
            f"compare --by {shlex.quote(by)}",
        )


def versions(
    ctx: typer.Context,
    filter_string: FilterArgument = None,
    by: ByOption = "app_version",
    since: SinceOption = None,
    where: WhereOption = None,
    stratify: StratifyOption = "name",
    sequential: SequentialOption = False,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """List releases in order of first appearance, each compared with the one before it."""
    from .. import analysis

    chosen = narrowed(filter_string, where, since=since)
    with opened(ctx, store) as used:
        _show(
            used,
            lambda: analysis.versions(
                chosen,
                by=by,
                experiment=experiment,
                store=used,
                stratify=key_of(stratify),
                sequential=sequential,
            ),
            plot,
            as_json,
            f"versions --by {shlex.quote(by)}",
        )


def flag(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Feature flag, such as: new_retriever", autocompletion=complete_flag
        ),
    ],
    filter_string: FilterArgument = None,
    since: SinceOption = None,
    where: WhereOption = None,
    stratify: StratifyOption = "name",
    sequential: SequentialOption = False,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Compare traces with a feature flag on to traces with it off."""
    from .. import analysis

    chosen = narrowed(filter_string, where, since=since)
    with opened(ctx, store) as used:
        _show(
            used,
            lambda: analysis.flag(
                name,
                chosen,
                experiment=experiment,
                store=used,
                stratify=key_of(stratify),
                sequential=sequential,
            ),
            plot,
            as_json,
            f"flag {shlex.quote(name)}",
        )


def _show(
    store: Store, ask: Callable[[], Comparison], plot: Path | None, as_json: bool, command: str
) -> None:
    """Print what ``command`` compares as a table or JSON, and draw it to the file ``plot``."""
    with Terminal(stderr=True).busy("Comparing"):
        found = ask()
    terminal, now = Terminal(), datetime.now().astimezone()
    if as_json:
        print_json(found.to_dict())
    elif found.rows:
        print_table(terminal, _columns(terminal, found, now), found.rows)
        _print_verdicts(terminal, found, now)
    if len(found.rows) < 2:
        remark(_nothing_to_compare(found))
    if not found.rows:
        if not found.left_out:
            print_misses(store, found.filter_string, found.experiment, command)
        return
    if plot is not None:
        with replacing(plot, store) as path:
            path.write_bytes(_draw(store, found, plot.suffix.lower()))
        remark(f"Chart written to {visible(plot)}.")
    if not as_json:
        _hint_at_traces(found)


def _draw(store: Store, found: Comparison, suffix: str) -> bytes:
    from ..analysis import deployments, timeline
    from ..analysis.comparison import STEPS
    from ..web.charts import draw
    from ..web.charts.picture import to_png
    from ..web.plots import events

    inside = found.experiment
    over_time = timeline(found.by, found.filter_string, buckets=STEPS, experiment=inside, store=store)
    since, until = min(row.first_seen for row in found.rows), max(row.last_seen for row in found.rows) + 1
    deployed = deployments(str(since), str(until), experiment=inside, store=store).found
    svg = draw(found, over_time, events(one for one in deployed if one.first_seen >= since))
    return to_png(svg) if suffix == ".png" else svg.encode()


def _columns(terminal: Terminal, comparison: Comparison, now: datetime) -> list[Column[Row]]:
    """Every column, in its order."""
    from ..analysis import Versions

    def moment(ms: int) -> Text:
        return Text(full_moment(ms) if terminal.room is None else short_moment(ms, now))

    def p_value(*tests: ErrorDifference | LatencyDifference | TailDifference | None) -> Text:
        least = min((test.p_adjusted for test in tests if test is not None), default=None)
        if least is None:
            return Text()
        return Text(f"<{_SMALLEST_P}" if least < _SMALLEST_P else f"{least:.2g}")

    def interval(row: Row) -> Text:
        low, high = row.error_rate_interval.low or 0.0, row.error_rate_interval.high or 0.0
        return Text(f"{_hundredths(low)}\N{EN DASH}{_hundredths(high)}", "dim")

    def error_difference(row: Row) -> Text:
        found = row.error_difference
        return Text("" if found is None else f"{100 * found.difference:+.1f} pp")

    def p95_difference(row: Row) -> Text:
        found = row.latency_difference
        return Text("" if found is None or found.p95_change is None else f"{100 * found.p95_change:+.0f} %")

    def verdict(row: Row) -> Text:
        if row.verdict is None:
            return Text("baseline" if row.value == comparison.baseline else "", "dim")
        return Text(_MARKS.get(row.verdict, "") + row.verdict, VERDICT_STYLES.get(row.verdict, ""))

    def right(title: str, cell: Callable[[Row], Text], rank: int = 0) -> Column[Row]:
        return Column(title, cell, rank, is_right=True)

    is_versions = isinstance(comparison, Versions)
    return [
        Column(visible(comparison.by), lambda row: styled(row.value, "cyan"), floor=28, cap=250),
        Column("first seen", lambda row: moment(row.first_seen), 1 if is_versions else 11),
        Column("last seen", lambda row: moment(row.last_seen), 14),
        right("traces", lambda row: Text(f"{row.traces:,}")),
        right("per hour", lambda row: _number(row.traces_per_hour), 13),
        right("errors", lambda row: Text(f"{row.errors:,}"), 6),
        right("error rate", lambda row: Text(f"{_hundredths(row.error_rate)} %")),
        Column("interval", interval, 4),
        right("p50", lambda row: _milliseconds(row.p50), 2),
        right("p95", lambda row: _milliseconds(row.p95), 3),
        right("p99", lambda row: _milliseconds(row.p99), 5),
        right("error diff", error_difference, 7),
        right("p errors", lambda row: p_value(row.error_difference), 8),
        right("p95 diff", p95_difference, 9),
        right("p latency", lambda row: p_value(row.latency_difference, row.tail_difference), 10),
        right("tokens", lambda row: _number(row.tokens.total if row.tokens else None), 12),
        *_amounts(comparison),
        Column("against", lambda row: styled(row.against or "", "dim"), 4 if is_versions else 15),
        Column("verdict", verdict),
    ]


def _amounts(comparison: Comparison) -> Iterator[Column[Row]]:
    """Columns of tokens and cost a request, and of feedback."""
    from ..analysis.verdicts import spell_mean

    def cell(measure: str, row: Row) -> Text:
        return Text("".join(spell_mean(one, one.mean) for one in row.amounts if one.measure == measure))

    for measure in dict.fromkeys(one.measure for row in comparison.rows for one in row.amounts):
        title = visible(measure) + " each" * (not measure.startswith("feedback."))
        yield Column(title, partial(cell, measure), 16, is_right=True)


def _hundredths(share: float) -> str:
    """``2.1`` for 0.021; a small share with as many digits as it needs."""
    number = 100 * share
    return f"{number:.2g}" if 0 < number < 1 else f"{number:.1f}"


def _milliseconds(value: float | None) -> Text:
    return Text("" if value is None else duration(value * 1e6))


def _number(value: float | None) -> Text:
    return Text("" if value is None else f"{value:,.0f}")


def _print_verdicts(terminal: Terminal, comparison: Comparison, now: datetime) -> None:
    """Print the verdicts in sentences, the releases that regressed, and how to read the figures."""
    from ..analysis import Versions, summary

    for one in summary(comparison, lambda ms: short_moment(ms, now)):
        terminal.line()
        text = styled(one.text)
        text.highlight_regex(rf"(?<= is ){one.verdict}(?= than )", VERDICT_STYLES.get(one.verdict, ""))
        terminal.paragraph(text, most=_SENTENCE_LINES)
    for regression in comparison.regressions[-_REGRESSIONS:] if isinstance(comparison, Versions) else ():
        terminal.line()
        terminal.paragraph(_regression(regression))
    terminal.line()
    terminal.paragraph(" ".join(_notes(comparison)), style="dim")


def _regression(regression: Regression) -> Text:
    began = Text.assemble("It got worse with ", styled(regression.began, "bold red"))
    if regression.ended is None:
        return began.append(", and no later release made it better.")
    return Text.assemble(began, " and better again with ", styled(regression.ended, "bold green"), ".")


def _notes(comparison: Comparison) -> Iterator[str]:
    yield f"{100 * comparison.confidence:g} % confidence intervals."
    if comparison.tests > 1:
        yield f"p-values are corrected for {comparison.tests} tests (Holm)."
    if comparison.sequential:
        yield "The tests are sequential: compare as often as you like while traces arrive."
    if comparison.is_reweighted:
        yield "Sentences compare the same mix of requests, so their rates may differ from those of the table."
    if comparison.left_out:
        without = f"{counted(comparison.left_out, 'trace')} without {visible(comparison.by)}"
        yield f"{without} {'is' if comparison.left_out == 1 else 'are'} left out."
    if comparison.other_values:
        yield f"{counted(comparison.other_values, 'value')} with fewer traces left out."


def _nothing_to_compare(comparison: Comparison) -> str:
    by = visible(comparison.by)
    if comparison.rows:
        value = visible(comparison.rows[0].value)
        others = f"; {counted(comparison.left_out, 'trace')} without {by} left out" * bool(
            comparison.left_out
        )
        return f"There is nothing to compare with: {by} is {value} in all traces{others}."
    if comparison.left_out:
        return f"{counted(comparison.left_out, 'trace')} found, none with {by}: there is nothing to compare."
    place = "" if comparison.experiment is None else f" in experiment {visible(comparison.experiment)!r}"
    if comparison.filter_string:
        return f"No trace{place} matches this filter. `wherefrom search --help` lists the filter fields."
    return f"There are no traces{place} to compare by {by}. Send your app a request first."


def _hint_at_traces(comparison: Comparison) -> None:
    """Name the command that lists the traces of what got worse."""
    from ..query.edit import join_filters

    worse = next((row for row in reversed(comparison.rows) if row.verdict == "worse"), None)
    if worse is None or worse.filter is None:
        return
    only, order = None, ""
    errors = worse.error_difference
    if errors and errors.direction > 0 and errors.p_adjusted < 1 - comparison.confidence:
        only = "status = 'ERROR'"
    else:
        order = " --order-by 'execution_time_ms DESC'"
    filter_string = join_filters(comparison.filter_string, worse.filter, only)
    is_bare = _NEEDS_NO_QUOTES.fullmatch(filter_string)
    argument = f'"{filter_string}"' if is_bare else shlex.quote(filter_string)
    hint("The traces:", f"wherefrom search {visible(argument)}{order}")
