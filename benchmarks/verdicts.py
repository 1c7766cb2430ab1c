"""How often a comparison is wrong, and how often it finds what differs: ``python -m benchmarks.verdicts``.

Ten routes of 10 to 400 ms, log-normal durations, 2 % errors. Processes differ in speed by a normal deviate;
the load of each second multiplies all durations and follows an AR(1) process with 0.9 and a deviation of
20 %. Ten minutes of the candidate follow ten minutes of the baseline, or both serve at once. The last column
has the tests that take traces to be independent: Fisher's, Mann-Whitney's and a quantile test, with Holm's
correction, of all routes together. Gates are asked at every look; there, the last column has those whose
intervals hold for one look only, and a quarter of the runs is made. ``--runs 40`` is quick, ``--only power``
runs a part, and ``--svg FILE`` draws the figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from math import ceil, nan, sqrt
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from wherefrom._buckets import LOG_RATIO
from wherefrom.analysis import Gate, Limits, Outcome, blocks
from wherefrom.analysis.blocks import Buckets, Labels
from wherefrom.analysis.evidence import Evidence, gather

BASE = np.log(np.geomspace(10_000, 400_000, 10))
SHARES = np.array([30, 18, 12, 10, 8, 6, 5, 4, 4, 3]) / 100
LOOKS = 60
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    """What both sides are like, and what only the candidate is."""

    traces: int = 2000
    candidate_traces: int | None = None
    processes: int = 4
    differ: float = 0.06
    load: float = 0.2
    seconds: int = 600
    at_once: bool = False
    restarts: int = 0
    errors: float = 0.02
    candidate_errors: float = 0.02
    slower: float = 1.0
    slow_route: int | None = None
    other_mix: bool = False

    def generate(self, random: np.random.Generator) -> tuple[blocks.Traffic, blocks.Traffic]:
        """The counts of the candidate and of the baseline."""
        load = self._load(random)
        return self._side(random, load, candidate=True), self._side(random, load, candidate=False)

    def _load(self, random: np.random.Generator) -> Floats:
        steps = random.normal(size=2 * self.seconds) * self.load
        load = np.empty_like(steps)
        load[0] = steps[0]
        for second in range(1, len(steps)):
            load[second] = 0.9 * load[second - 1] + sqrt(1 - 0.9**2) * steps[second]
        return load

    def _side(self, random: np.random.Generator, load: Floats, *, candidate: bool) -> blocks.Traffic:
        count = (candidate and self.candidate_traces) or self.traces
        route = random.choice(10, size=count, p=SHARES[::-1] if candidate and self.other_mix else SHARES)
        since = random.uniform(0, self.seconds, count)
        begin = self.seconds if candidate and not self.at_once else 0
        slot = random.integers(0, self.processes, count)
        restarts = np.sort(random.uniform(0, self.seconds, (self.processes, self.restarts)), axis=1)
        process = slot * (self.restarts + 1) + (since[:, None] > restarts[slot]).sum(axis=1)
        speeds = random.normal(size=self.processes * (self.restarts + 1)) * self.differ
        logs = BASE[route] + random.normal(size=count) * 0.6 + speeds[process]
        logs += load[(since + begin).astype(int)]
        if candidate:
            logs += np.log(self.slower) + np.log(2) * (route == self.slow_route)
        failed = random.random(count) < (self.candidate_errors if candidate else self.errors)
        buckets = (logs / LOG_RATIO).astype(int)
        name = "b" if candidate else "a"
        times = ((since + begin) * 10).astype(int)
        ones, rows, none = np.ones(count, int), np.arange(count), np.zeros(count)
        return blocks.Traffic(
            Labels(tuple(f"r{number}" for number in range(len(BASE))), route),
            Labels(tuple(f"{name}{number}" for number in range(len(speeds))), process),
            times,
            ones,
            failed.astype(int),
            Buckets(rows, buckets, ones.astype(float)),
            Buckets(rows, buckets, failed.astype(float)),
            none,
            none,
        )


@dataclass
class Tally:
    """How often each verdict was given."""

    worse: int = 0
    better: int = 0
    runs: int = 0

    def add(self, direction: int) -> None:
        self.runs += 1
        self.worse += direction > 0
        self.better += direction < 0

    def share(self, *, found: bool) -> float:
        """The share that was found to be worse; of equal sides, that was found to be anything."""
        return (self.worse + (0 if found else self.better)) / self.runs if self.runs else nan


@dataclass(frozen=True)
class Case:
    part: str
    name: str
    traffic: Traffic
    target: float
    is_power: bool = False
    looks: int = 1
    limits: Limits | None = None
    answer: Outcome = Outcome.FAIL
    tallies: tuple[Tally, Tally] = field(default_factory=lambda: (Tally(), Tally()))

    def run(self, runs: int, *, alone: bool = False) -> None:
        """Judge so many simulations; ``alone``: not by the tests of independent traces too."""
        random = np.random.default_rng(1)
        for _ in range(runs):
            sides = self.traffic.generate(random)
            judges = (
                (direction, independent) if self.limits is None else (self._gate(False), self._gate(True))
            )
            for tally, judge in islice(zip(self.tallies, judges, strict=True), 1 if alone else 2):
                tally.add(self._looked(*sides, judge))

    def _gate(self, once: bool) -> Judge:
        """A judge that finds 1 where a gate with the limits has the answer."""
        gate = Gate("a", "b", limits=self.limits or Limits(), once=once)
        return lambda first, second, _again: int(gate.judge(first, second).verdict is self.answer)

    def _looked(self, first: blocks.Traffic, second: blocks.Traffic, judge: Judge) -> int:
        if self.looks == 1:
            return judge(first, second, False)
        for seen in look_again(first, second, self.looks):
            if found := judge(*seen, True):
                return found
        return 0

    def line(self) -> str:
        ours, others = (tally.share(found=self.is_power) for tally in self.tallies)
        held = ours >= self.target if self.is_power else ours <= self.target
        sign = "≥" if self.is_power else "≤"
        return (
            f"{self.part:<10} {self.name:<58} {ours:>6.1%}  {sign} {self.target:.0%}"
            f" {'yes' if held else 'NO':>4} {others:>9.1%}"
        )


Judge = Callable[[blocks.Traffic, blocks.Traffic, bool], int]


def look_again(
    first: blocks.Traffic, second: blocks.Traffic, looks: int
) -> Iterator[tuple[blocks.Traffic, blocks.Traffic]]:
    """What there is of both at each look; looks are after as many traces of the first."""
    times = np.sort(first.times)
    for look in range(1, looks + 1):
        now = times[len(times) * look // looks - 1]
        yield (
            first.taken(np.flatnonzero(first.times <= now)),
            second.taken(np.flatnonzero(second.times <= now)),
        )


def direction(first: blocks.Traffic, second: blocks.Traffic, again: bool) -> int:
    """The package's verdict: 1 for worse, -1 for better, 0 for no difference."""
    return _towards(gather(first, second, anytime=again))


def _towards(found: Evidence) -> int:
    seen = {effect.direction for effect in found.effects if effect.p_adjusted < 0.05}
    return 1 if 1 in seen else min(seen, default=0)


def independent(first: blocks.Traffic, second: blocks.Traffic, again: bool) -> int:
    """The verdict of tests that take each trace to be independent, and routes to be alike."""
    from scipy import stats

    sides = [side.durations.buckets.astype(float) for side in (first, second)]
    errors = [int(side.errors.sum()) for side in (first, second)]
    n, m = map(len, sides)
    if min(n, m) < 30:
        return 0
    both = np.sort(np.concatenate(sides))
    slowest = int(max(0.01 * (n + m), min(0.05 * (n + m), 40)))
    over = [int((side > both[-slowest - 1]).sum()) for side in sides]
    p_values = [
        stats.fisher_exact([[errors[0], n - errors[0]], [errors[1], m - errors[1]]]).pvalue,
        stats.mannwhitneyu(*sides).pvalue,
        stats.fisher_exact([[over[0], n - over[0]], [over[1], m - over[1]]]).pvalue,
    ]
    changes = [
        errors[0] / n - errors[1] / m,
        _change(sides, (0.5, 0.95)),
        _change(sides, (0.95, 0.99)),
    ]
    seen: set[int] = set()
    for rank, place in enumerate(np.argsort(p_values)):
        if p_values[place] * (3 - rank) >= 0.05:
            break
        seen.add(int(np.sign(changes[place])))
    return 1 if 1 in seen else min(seen, default=0)


def _change(sides: list[Floats], shares: tuple[float, float]) -> float:
    """The largest change of two quantiles; 0 below 5 %."""
    changes = [(np.quantile(sides[0], s) - np.quantile(sides[1], s)) * LOG_RATIO for s in shares]
    largest = float(max(changes, key=abs))
    return largest if abs(largest) >= 0.05 else 0.0


def cases() -> Iterator[Case]:
    for at_once in (False, True):
        how = "at once" if at_once else "one after the other"
        for differ in (0, 0.06, 0.15):
            for processes, traces in ((2, 600), (4, 2000), (16, 2000), (4, 20_000)):
                name = f"{processes} processes, {differ:.0%} apart, {traces:,} traces, {how}"
                traffic = Traffic(traces, processes=processes, differ=differ, at_once=at_once)
                yield Case("same", name, traffic, 0.05)
        name = f"4 processes, 6% apart, 2 restarts each, 5,000 traces, {how}"
        yield Case("same", name, Traffic(5000, restarts=2, at_once=at_once), 0.05)
        for few in (60, 200):
            canary = Traffic(3000, few, errors=0.015, candidate_errors=0.015, at_once=at_once)
            yield Case("same", f"{few} against 3,000 traces, 1.5% errors, {how}", canary, 0.05)
        mixed = Traffic(5000, at_once=at_once, other_mix=True)
        yield Case("mix", f"other shares of routes, 5,000 traces, {how}", mixed, 0.05)
        failing = Traffic(1200, at_once=at_once, errors=0.02, candidate_errors=0.06)
        yield Case("power", f"errors 6% against 2%, 1,200 traces, {how}", failing, 0.90, is_power=True)
        slower = Traffic(1200, at_once=at_once, slower=1.4)
        yield Case("power", f"40% slower, 1,200 traces, {how}", slower, 0.80, is_power=True)
        route = Traffic(1200, at_once=at_once, slow_route=4)
        yield Case(
            "power", f"one route of ten twice as slow, 1,200 traces, {how}", route, 0.80, is_power=True
        )
        for differ, processes, restarts, errors in (
            (0.06, 4, 0, 0.02),
            (0, 4, 0, 0.02),
            (0.15, 2, 0, 0.02),
            (0.06, 16, 1, 0.10),
        ):
            looked = Traffic(
                1500,
                processes=processes,
                differ=differ,
                restarts=restarts,
                errors=errors,
                candidate_errors=errors,
                at_once=at_once,
            )
            name = f"{LOOKS} looks, {processes} processes, {differ:.0%} apart, {restarts} restarts, {how}"
            yield Case("looks", name, looked, 0.05, looks=LOOKS)
        slower = Traffic(1500, at_once=at_once, slower=1.4)
        name = f"{LOOKS} looks at 1,500 traces, 40% slower, {how}"
        yield Case("looks", name, slower, 0.80, is_power=True, looks=LOOKS)
    yield Case(
        "same",
        "16 processes, 2,000 traces in one minute, at once",
        Traffic(2000, processes=16, seconds=60, at_once=True),
        0.05,
    )
    yield Case(
        "limits",
        "16 processes, 2,000 traces in one minute, after the other",
        Traffic(2000, processes=16, seconds=60),
        0.05,
    )
    yield Case(
        "limits",
        "40% slower, 15% apart, 1,200 traces",
        Traffic(1200, differ=0.15, slower=1.4),
        0.8,
        is_power=True,
    )


def gates() -> Iterator[Case]:
    """What a gate must not do more often than in 5 % of releases, and what it is for."""
    slow, failing = Limits(None, 0.5), Limits(0.05, None)
    many = Traffic(6000, processes=16, at_once=True)
    for what, traffic, limits, answer, aim in (
        ("the same fails", Traffic(1500, at_once=True), Limits(), Outcome.FAIL, 0.05),
        ("the same fails, one after the other", Traffic(1500), Limits(), Outcome.FAIL, 0.05),
        (
            "errors at the limit of 5 points pass",
            Traffic(1500, at_once=True, candidate_errors=0.07),
            failing,
            Outcome.PASS,
            0.05,
        ),
        ("p95 at the limit of 50% passes", replace(many, slower=1.5), slow, Outcome.PASS, 0.05),
        (
            "errors at twice the limit fail",
            Traffic(1500, at_once=True, candidate_errors=0.12),
            failing,
            Outcome.FAIL,
            0.8,
        ),
        ("p95 at twice the limit fails", replace(many, slower=2.0), slow, Outcome.FAIL, 0.8),
        ("the same passes 1.5 points and 40%", many, Limits(0.015, 0.4), Outcome.PASS, 0.8),
    ):
        looks = LOOKS if traffic.traces < many.traces else LOOKS // 5
        name = f"{what}, {looks} looks at {traffic.traces:,} traces"
        yield Case("gate", name, traffic, aim, aim > 0.5, looks, limits, answer)


def draw(found: list[Case]) -> str:
    """The shares as an SVG: ours filled, those of independent tests as rings, and the target as a line."""
    row, left, width = 20, 430, 400
    height = row * (len(found) + 2)
    size = f'viewBox="0 0 {left + width + 40} {height}" font-family="sans-serif" font-size="12" fill="#334"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f'<text x="{left}" y="14">● by blocks   ○ independent traces   | target</text>',
    ]
    for place, case in enumerate(found, 2):
        y = row * place - 4
        ours, others = (left + width * tally.share(found=case.is_power) for tally in case.tallies)
        target = left + width * case.target
        parts += [
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{case.name.replace("&", "&amp;")}</text>',
            f'<path d="M{left} {y}h{width}" stroke="#dde"/>',
            f'<path d="M{target:.0f} {y - 8}v16" stroke="#c33"/>',
            f'<circle cx="{others:.0f}" cy="{y}" r="4" fill="none" stroke="#778"/>',
            f'<circle cx="{ours:.0f}" cy="{y}" r="4.5" fill="#26c"/>',
        ]
    parts.append("</svg>\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--only", help="one part: same, mix, power, looks, limits or gate")
    parser.add_argument("--alone", action="store_true", help="do not run the tests of independent traces")
    parser.add_argument("--svg", type=Path, help="write a picture of the figures")
    chosen = parser.parse_args()
    print(f"{'part':<10} {'traffic':<58} {'blocks':>6}  {'aim':>5} {'held':>4} {'independent':>9}")
    done: list[Case] = []
    for case in chain(cases(), gates()):
        if chosen.only in {None, case.part}:
            begun = perf_counter()
            case.run(chosen.runs if case.limits is None else ceil(chosen.runs / 4), alone=chosen.alone)
            done.append(case)
            print(f"{case.line()}  {perf_counter() - begun:>6.0f} s", flush=True)
    if chosen.svg:
        chosen.svg.write_text(draw(done))


if __name__ == "__main__":
    main()
