"""``wherefrom gate``: whether a release is within limits of another one, as an exit code and a report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from xml.etree import ElementTree as ET

import orjson
import typer
from rich.text import Text

from .._sanitize import visible, visible_json
from ..exceptions import MissingExtraError, WherefromError
from .compare import StratifyOption, key_of
from .completion import complete_baseline
from .formats import replacing
from .options import (
    ByOption,
    ExperimentOption,
    FilterArgument,
    SinceOption,
    StoreOption,
    WhereOption,
    examples,
    narrowed,
    opened,
    option,
)
from .terminal import Terminal, complain, remark, styled

if TYPE_CHECKING:
    from ..analysis import Criterion, GateVerdict
    from ..analysis.comparison import Report
    from ..stores import Store

GATE_HELP: Final = examples(
    ("wherefrom gate --baseline 1.0.0 --candidate 1.1.0", "may 1.1.0 replace 1.0.0?"),
    ("wherefrom gate --baseline 1.0.0 --candidate 1.1.0 --max-p95-increase 30%", "with another limit"),
    ("wherefrom gate --baseline 1.0.0 --candidate 1.1.0 --format junit > gate.xml", "for a pipeline"),
    closing="Exit codes: 0 pass, 1 fail, 3 not enough evidence yet, 2 the question cannot be asked. A gate"
    " may be asked again and again while traces arrive. A release passes only when its traces show that"
    " each limit holds.",
)
CODES: Final = {"pass": 0, "fail": 1, "inconclusive": 3}
_NOT_ASKED: Final = 2
_STYLES: Final = {"pass": "bold green", "fail": "bold red", "inconclusive": "yellow"}
_MARKS: Final = {"pass": "✓", "fail": "✗", "inconclusive": "·"}
_EMOJI: Final = {"pass": "✅", "fail": "❌", "inconclusive": "⏳"}
_PLAIN: Final = re.compile(r"[^\w\s.,:;%()+/…≥≤-]")


class Format(StrEnum):
    """The forms of a report."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JUNIT = "junit"
    JSON = "json"


def gate(
    ctx: typer.Context,
    baseline: Annotated[str, option("--baseline", "VALUE", "Value to compare with.", complete_baseline)],
    candidate: Annotated[str, option("--candidate", "VALUE", "Value that may pass.", complete_baseline)],
    filter_string: FilterArgument = None,
    by: ByOption = "app_version",
    max_error_increase: Annotated[
        str,
        option("--max-error-increase", "LIMIT", "How many percentage points more may fail: 1pp, or none."),
    ] = "1pp",
    max_p95_increase: Annotated[
        str, option("--max-p95-increase", "LIMIT", "How much longer p95 may be: 10%, or none.")
    ] = "10%",
    max_p50_increase: Annotated[
        str, option("--max-p50-increase", "LIMIT", "How much longer p50 may be: 10%, or none.")
    ] = "none",
    min_traces: Annotated[
        int, typer.Option("--min-traces", min=1, help="Traces that each side needs; at least 30.")
    ] = 30,
    once: Annotated[
        bool, typer.Option("--once", help="This is the only look: intervals are narrower, and hold once.")
    ] = False,
    since: SinceOption = None,
    where: WhereOption = None,
    stratify: StratifyOption = "name",
    form: Annotated[Format, typer.Option("--format", help="Form of the report.")] = Format.TEXT,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write the report to this file.", dir_okay=False),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture", metavar="FILE", help="Draw both values: .png for PNG, else SVG.", dir_okay=False
        ),
    ] = None,
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Decide whether one value may pass: it must not be worse than the baseline by more than a limit."""
    try:
        from ..analysis import Gate, Limits
        from ..analysis.gate import read_gate, report_gate
        from ..analysis.scope import opened as reading

        limits = Limits.read(errors=max_error_increase, p95=max_p95_increase, p50=max_p50_increase)
        question, stratum = Gate(baseline, candidate, by, limits, min_traces, once), key_of(stratify)
        chosen = narrowed(filter_string, where, since=since)
        with opened(ctx, store) as used, reading(used, chosen, experiment) as (snapshot, selection):
            found = read_gate(snapshot, selection, question, stratum)
            if picture is not None:
                report = report_gate(snapshot, selection, question, stratum)
                _draw(report, picture, used)
            if output is not None:
                with replacing(output, used) as path:
                    path.write_text(_REPORTS[form](found), encoding="utf-8")
    except WherefromError as error:
        complain(error)
        raise typer.Exit(_NOT_ASKED) from None  # 1 would say that the release failed
    if output is not None or form is Format.TEXT:
        _print(found)
    else:
        print(_REPORTS[form](found), end="", flush=True)  # noqa: T201 - without the styles of the console
    raise typer.Exit(CODES[found.verdict])


def _draw(report: Report | None, picture: Path, store: Store) -> None:
    try:
        from ..web.charts import draw
        from ..web.charts.picture import to_png
        from ..web.plots import events
    except ModuleNotFoundError as error:
        raise MissingExtraError("`wherefrom gate --picture`", "ui") from error
    if report is None:
        remark("There is nothing to draw: no trace has either value.")
        return
    svg = draw(report.comparison, report.timeline, events(report.deployments), (report.since, report.until))
    with replacing(picture, store) as path:
        path.write_bytes(to_png(svg) if picture.suffix.lower() == ".png" else svg.encode())
    remark(f"Picture written to {visible(picture)}.")


def _print(found: GateVerdict) -> None:
    terminal = Terminal()
    for one in found.criteria:
        mark = Text(f"{_MARKS[one.result]} {one.result}: ", _STYLES[one.result])
        terminal.paragraph(Text.assemble(mark, styled(one.text)))
    terminal.paragraph(styled(found.sentence, _STYLES[found.verdict]))


# Reports


def _text(found: GateVerdict) -> str:
    return "\n".join(
        [*(f"{one.result}: {visible(one.text)}" for one in found.criteria), visible(found.sentence), ""]
    )


def _json(found: GateVerdict) -> str:
    return visible_json(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()) + "\n"


def _markdown(found: GateVerdict) -> str:
    """For a pull request or the summary of a job."""
    title = f"{_plain(found.candidate)} against {_plain(found.baseline)}: {found.verdict}"
    lines = [f"### {_EMOJI[found.verdict]} {title}", "", _plain(found.sentence), ""]
    if found.criteria:
        lines += [
            "| criterion | baseline | candidate | increase | interval | limit | |",
            "|---|--:|--:|--:|--:|--:|---|",
        ]
        lines += [f"| {' | '.join(_cells(one))} |" for one in found.criteria]
        lines.append("")
    lines.append(f"Score {found.score:g} of 100, by `{_plain(found.by)}`, from {_traffic(found)}.")
    return "\n".join(lines) + "\n"


def _cells(one: Criterion) -> Iterator[str]:
    is_share = one.measure == "errors"
    unit = " pp" if is_share else " %"

    def share(value: float | None, sign: str = "+") -> str:
        return "?" if value is None else f"{100 * value:{sign}.3g}"

    def figure(value: float | None) -> str:
        if value is None:
            return ""
        return f"{100 * value:.3g} %" if is_share else f"{value:,.4g} ms"

    yield _plain(one.measure if one.stratum is None else f"{one.measure} of {one.stratum}")
    yield figure(one.baseline)
    yield figure(one.candidate)
    yield f"{share(one.increase)}{unit}"
    yield f"{share(one.interval.low)} to {share(one.interval.high)}{unit}"
    yield f"{share(one.limit)}{unit}"
    yield f"{_EMOJI[one.result]} {one.result}"


def _plain(text: str) -> str:
    """Text without markup, mentions or links, whatever it holds; entities show what would be markup."""
    shown = " ".join(visible(text).split())
    return _PLAIN.sub(
        lambda match: f"&#{ord(match[0])};<!-- -->" if match[0] == "@" else f"&#{ord(match[0])};", shown
    )


def _traffic(found: GateVerdict) -> str:
    first, second = found.traces
    return f"{first:,} and {second:,} traces of {found.processes[0]:,} and {found.processes[1]:,} processes"


def _junit(found: GateVerdict) -> str:
    """A test case for each criterion; one that is not decided is skipped."""
    name = f"{found.by} {found.candidate} against {found.baseline}"
    suite = ET.Element("testsuite", name="wherefrom gate")
    for one in found.criteria:
        what = one.measure if one.stratum is None else f"{one.measure} of {one.stratum}"
        _case(suite, name, what, one.result, one.text)
    if not found.criteria:
        _case(suite, name, "evidence", found.verdict, found.sentence)
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", "0")
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    ET.SubElement(suite, "system-out").text = visible(found.sentence)
    whole = ET.Element("testsuites")
    whole.append(suite)
    ET.indent(whole)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(whole, encoding="unicode")}\n'


def _case(suite: ET.Element, classname: str, name: str, result: str, text: str) -> None:
    case = ET.SubElement(suite, "testcase", classname=visible(classname), name=visible(name), time="0")
    if result == "fail":
        ET.SubElement(case, "failure", message=visible(text), type="limit")
    elif result == "inconclusive":
        ET.SubElement(case, "skipped", message=visible(text))


_REPORTS: Final[dict[Format, Callable[[GateVerdict], str]]] = {
    Format.TEXT: _text,
    Format.MARKDOWN: _markdown,
    Format.JUNIT: _junit,
    Format.JSON: _json,
}
