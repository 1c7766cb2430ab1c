"""The verdicts of a comparison in whole sentences, what they rest on, and where to look next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.text import Text

from .._sanitize import visible
from .._units import counted, short_moment
from ..analysis import Comparison, Regression, Row, Verdict, Versions
from ..analysis.filters import both, find_condition
from .terminal import Terminal, hint_command
from .text import styled

if TYPE_CHECKING:
    from ..stores import Store

VERDICT_STYLES: Final = {
    Verdict.WORSE: "bold red",
    Verdict.BETTER: "bold green",
    Verdict.NO_DIFFERENCE: "",
    Verdict.TOO_FEW: "yellow",
}
_TOLD_SINGLY: Final = (Verdict.WORSE, Verdict.BETTER)
_MOST_TOLD: Final = 5
_MOST_LINES: Final = 3
_BARE: Final = re.compile(r"[^\"$`\\!]*")


def print_verdicts(terminal: Terminal, comparison: Comparison, now: datetime) -> None:
    """Print what is worse, better or alike, and what that rests on."""
    _print_sentences(terminal, comparison.rows, now)
    if isinstance(comparison, Versions):
        _print_regressions(terminal, comparison)
    terminal.line()
    terminal.paragraph(" ".join(_remarks(comparison)), style="dim")


def _print_sentences(terminal: Terminal, rows: Sequence[Row], now: datetime) -> None:
    """Each value that is worse or better in a sentence, the worse first; the others in one together."""
    told = sorted(
        (row for row in rows if row.verdict in _TOLD_SINGLY),
        key=lambda row: row.verdict is not Verdict.WORSE,
    )
    alike = [row for row in rows if row.verdict is Verdict.NO_DIFFERENCE]
    if len(alike) <= _MOST_TOLD - len(told):
        told, alike = [*told, *alike], []
    for row in told[:_MOST_TOLD]:
        terminal.line()
        terminal.paragraph(_sentence(row, now))
    if len(told) > _MOST_TOLD:
        terminal.line(f"and {counted(len(told) - _MOST_TOLD, 'verdict')} more: --json has them", style="dim")
    few = [row for row in rows if row.verdict is Verdict.TOO_FEW]
    for together, what in ((alike, "No difference is seen of"), (few, "Too few traces to judge")):
        if together:
            terminal.line()
            terminal.paragraph(f"{what} {_listed(together)}.", most=_MOST_LINES)


def _sentence(row: Row, now: datetime) -> Text:
    value, against = styled(row.value, "bold"), visible(row.against)
    if row.verdict is Verdict.NO_DIFFERENCE:
        between = Text.assemble("Between ", value, f" and {against} there is no difference seen: ")
        return between.append(f"{row.reason}.")
    verdict = Text(str(row.verdict), VERDICT_STYLES[row.verdict or Verdict.NO_DIFFERENCE])
    since = f", first seen {short_moment(row.first_seen, now)}," if row.verdict is Verdict.WORSE else ""
    return Text.assemble(value, since, " is ", verdict, f" than {against}: {row.reason}.")


def _listed(rows: Sequence[Row]) -> str:
    names = [visible(row.value) for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _print_regressions(terminal: Terminal, versions: Versions) -> None:
    """Which release made it worse, and whether one has made it better again."""
    for regression in versions.regressions[-_MOST_TOLD:]:
        terminal.line()
        terminal.paragraph(_story(regression))


def _story(regression: Regression) -> Text:
    began = Text.assemble("It got worse with ", styled(regression.began, "bold red"))
    if regression.ended is None:
        return began.append(", and no release since has made it better.")
    return (
        began.append(" and better again with ")
        .append_text(styled(regression.ended, "bold green"))
        .append(".")
    )


def _remarks(comparison: Comparison) -> Iterator[str]:
    yield f"Intervals are {100 * comparison.confidence:g} % sure."
    if comparison.tests > 1:
        yield f"p-values are corrected for {comparison.tests} tests (Holm)."
    if comparison.left_out:
        verb = "have" if comparison.left_out > 1 else "has"
        without = f"{counted(comparison.left_out, 'trace')} {verb} no {visible(comparison.by)}"
        yield f"{without} and {'are' if comparison.left_out > 1 else 'is'} left out."
    if comparison.other_values:
        yield f"{counted(comparison.other_values, 'value')} with fewer traces left out."


def nothing_to_compare(comparison: Comparison) -> str:
    """Why there are no rows."""
    by = visible(comparison.by)
    if comparison.left_out:
        return f"{counted(comparison.left_out, 'trace')} found, none with {by}: there is nothing to compare."
    if comparison.filter_string:
        return "No trace passes this filter: `wherefrom search --help` lists what a filter can ask for."
    return f"There are no traces to compare by {by}: send your app a request first."


def show_where_to_look(store: Store, comparison: Comparison) -> None:
    """To a person who looks on, say which command lists the traces of what got worse."""
    worse = next((row for row in reversed(comparison.rows) if row.verdict is Verdict.WORSE), None)
    if worse is not None and (filter_string := _filter_for(store, comparison, worse)) is not None:
        errors = worse.error_difference
        by_errors = errors and errors.direction > 0 and errors.p_adjusted < 1 - comparison.confidence
        order = "" if by_errors else " --order-by 'execution_time_ms DESC'"
        condition = f"{filter_string} AND status = 'ERROR'" if by_errors else filter_string
        hint_command("The traces:", f"wherefrom search {_as_argument(condition)}{order}")


def _filter_for(store: Store, comparison: Comparison, row: Row) -> str | None:
    condition = find_condition(comparison.by, store=store)
    return None if condition is None else both(comparison.filter_string, condition(row.value))


def _as_argument(text: str) -> str:
    return f'"{visible(text)}"' if _BARE.fullmatch(text) else visible(shlex.quote(text))
