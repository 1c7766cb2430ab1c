"""``wherefrom watch``: the verdict on a release while its traces arrive."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from .._units import age_ms, counted, duration, full_moment, short_moment
from .compare import VERDICT_STYLES, StratifyOption, key_of
from .options import (
    ByOption,
    ExperimentOption,
    SinceOption,
    StoreOption,
    WhereOption,
    examples,
    narrowed,
    opened,
    option,
)
from .terminal import Terminal, styled

if TYPE_CHECKING:
    from ..analysis.watch import Look

WATCH_HELP: Final = examples(
    ("wherefrom watch --candidate 1.1.0 --for 30m", "watch a release for half an hour, or until it is sure"),
    ("wherefrom watch --candidate 1.1.0 --baseline 1.0.0 --every 1m", "against another than the last one"),
    ("wherefrom watch --candidate 1.1.0 --for 30m || ./rollback.sh", "in a deploy script"),
    closing="Exit status: 0 better, or no difference seen when the time is over; 1 worse; 3 too few traces;"
    " 130 stopped with Ctrl-C. The tests are sequential: the chance that any look is wrong is 5 %.",
)
_TOO_FEW: Final = 3
_STOPPED: Final = 130
_EXITS: Final = {"worse": 1, "too few traces": _TOO_FEW}
_DAY_MS: Final = 86_400_000


def _time(name: str, text: str) -> int:
    milliseconds = age_ms(text)
    if milliseconds is None:
        message = f"{text!r} is not a time: use a number and s, m, h or d, such as 10s or 30m"
        raise typer.BadParameter(message, param_hint=name)
    return milliseconds


def watch(
    ctx: typer.Context,
    candidate: Annotated[str, option("--candidate", "VALUE", "The release to watch.")],
    baseline: Annotated[
        str | None,
        option("--baseline", "VALUE", "Value to compare with. The default is the last before the candidate."),
    ] = None,
    lasting: Annotated[str, option("--for", "TIME", "The longest time to watch: 90s, 30m or 2h.")] = "30m",
    every: Annotated[str, option("--every", "TIME", "The time from one look to the next.")] = "10s",
    by: ByOption = "app_version",
    where: WhereOption = None,
    since: SinceOption = None,
    stratify: StratifyOption = "name",
    experiment: ExperimentOption = None,
    store: StoreOption = None,
) -> None:
    """Watch a release: print the verdict when it changes, and end as soon as it is sure."""
    from ..analysis.watch import watch

    # The first trace that counts stays the same: sequential tests are for traces that are only added.
    first = since or time.time_ns() // 1_000_000 - _DAY_MS
    terminal, last = Terminal(), None
    with opened(ctx, store) as used, terminal.status("Watching") as say:
        looks = watch(
            used,
            candidate,
            narrowed(where, since=first),
            for_ms=_time("--for", lasting),
            every_ms=_time("--every", every),
            by=by,
            baseline=baseline,
            experiment=experiment,
            stratify=key_of(stratify),
        )
        try:
            for look in looks:
                if last is None or _state(look) != _state(last):
                    _print(terminal, look)
                last = look
                traces = f"{look.traces[0]:,} and {counted(look.traces[1], 'trace')}"
                say(f"{look.verdict}, {traces}, {duration(look.left_ms * 1e6)} to go")
        except KeyboardInterrupt:
            terminal.line("Stopped." if last is None else f"Stopped. So far: {last.verdict}.")
            raise typer.Exit(_STOPPED) from None
    if last is None:
        raise typer.Exit(_TOO_FEW)
    terminal.paragraph(styled(_conclusion(last)), style="dim")
    raise typer.Exit(_EXITS.get(last.verdict, 0))


def _state(look: Look) -> object:
    return look.verdict, look.against


def _print(terminal: Terminal, look: Look) -> None:
    moment = full_moment(look.at)
    if terminal.room is not None:
        moment = short_moment(look.at, datetime.now().astimezone())
    verdict = Text(str(look.verdict), VERDICT_STYLES.get(look.verdict, ""))
    terminal.paragraph(Text.assemble((moment, "dim"), " ", verdict, ": ", styled(look.text)))


def _conclusion(look: Look) -> str:
    if look.is_sure:
        return f"Sure with {look.traces[0]:,} and {counted(look.traces[1], 'trace')}."
    return f"The time is over: {look.text}"
