"""A gate: what passes for sure, what fails for sure, and what nobody knows yet."""

from __future__ import annotations

import math
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import numpy as np
import pytest
from benchmarks.verdicts import Traffic, look_again
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom import Trace, keys
from wherefrom.analysis import Gate, GateVerdict, Limits, Outcome, gate
from wherefrom.analysis.blocks import Count
from wherefrom.exceptions import FilterError
from wherefrom.stores import open_store

from .test_evidence import traffic
from .traffic import START, make_trace

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
GATE = Gate("1.0.0", "1.1.0")


def blocks(
    traces: int, errors: int, *, begin: int = 0, times: float = 1.0, processes: int = 8
) -> list[Count]:
    """Traces of equal processes over 400 s, whose durations are log-normal around 100 ms."""
    random = Random(begin)
    failing = set(random.sample(range(traces), errors))
    return [
        Count(
            "r",
            f"{begin}/{place % processes}",
            begin + place * 400 // traces,
            int(math.log(100_000 * times * random.lognormvariate(0, 0.3)) / math.log(1.02)),
            1,
            int(place in failing),
        )
        for place in range(traces)
    ]


def judged(question: Gate, errors: int, times: float = 1.0, traces: int = 12_000) -> GateVerdict:
    candidate = blocks(traces, errors, begin=1000, times=times)
    return question.judge(candidate, blocks(traces, traces // 50), elapsed_ms=400_000)


def test_what_is_within_the_limits_for_sure_passes() -> None:
    found = judged(GATE, 240)
    assert (found.verdict, found.score) == (PASS, 100)
    assert [(one.measure, one.result) for one in found.criteria] == [("errors", PASS), ("p95", PASS)]
    assert all(one.needed is None for one in found.criteria)
    assert found.sentence.startswith("1.1.0 passes: it is within the limits of 1.0.0: errors 2.0 % against")
    assert "limit +1 points" in found.sentence
    assert "limit +10 %" in found.sentence


def test_what_is_beyond_a_limit_for_sure_fails_whatever_else_passes() -> None:
    errors, slower = judged(GATE, 600), judged(GATE, 240, 1.3)
    assert [one.result for one in errors.criteria] == [FAIL, PASS]
    assert [one.result for one in slower.criteria] == [PASS, FAIL]
    assert (errors.verdict, errors.score) == (slower.verdict, slower.score) == (FAIL, 0)
    assert "p95" not in errors.sentence
    assert errors.criteria[0].increase == pytest.approx(0.03, abs=1e-6)
    assert (errors.criteria[0].interval.low or 0) > 0.01
    assert slower.criteria[1].increase == pytest.approx(0.3, abs=0.05)


def test_no_difference_seen_is_no_reason_to_pass() -> None:
    """Few traces of the same code are not failed, and not passed; the sentence says what would do."""
    found = judged(GATE, 6, traces=300)
    assert found.verdict is INCONCLUSIVE
    assert 0 < found.score < 100
    assert "would decide; 300 and 300 traces" in found.sentence


def test_a_higher_limit_passes_what_a_lower_one_does_not() -> None:
    known = [judged(Gate("1.0.0", "1.1.0", limits=Limits(limit, None)), 400) for limit in (0.0, 0.014, 0.1)]
    assert [one.verdict for one in known] == [FAIL, INCONCLUSIVE, PASS]
    assert [one.score for one in known] == sorted(one.score for one in known)


def test_traces_without_errors_prove_no_low_error_rate() -> None:
    """60 traces without an error may be of an app of which one in thirty fails."""
    question = Gate("1.0.0", "1.1.0", limits=Limits(p95=None))
    few, many = judged(question, 0, traces=49), judged(question, 0, traces=49 * 200)
    assert few.verdict is INCONCLUSIVE
    assert (few.criteria[0].interval.high or 0) > 0.05
    assert many.verdict is PASS


def test_one_look_needs_less_than_many() -> None:
    many, one = judged(GATE, 240, traces=5000), judged(Gate("1.0.0", "1.1.0", once=True), 240, traces=5000)
    for often, single in zip(many.criteria, one.criteria, strict=True):
        assert (single.interval.high or 0) < (often.interval.high or 9)
        assert (single.interval.low or 0) > (often.interval.low or -9)


def test_one_route_that_is_worse_for_sure_fails_and_is_named() -> None:
    """Its p95 is far below that of all: the whole shows nothing."""
    sides = [
        [
            *blocks(6000, 0, begin=begin),
            *(
                count._replace(stratum="fast", bucket=(count.bucket or 0) - 100)
                for count in blocks(2000, 0, begin=begin, times=times)
            ),
        ]
        for begin, times in ((1000, 2.0), (0, 1.0))
    ]
    found = GATE.judge(*sides)
    assert [(one.measure, one.stratum, one.result) for one in found.criteria] == [
        ("errors", None, PASS),
        ("p95", None, PASS),
        ("durations", "fast", FAIL),
    ]
    assert "fast: durations (+98 %" in found.sentence


def test_few_processes_that_differ_need_more_processes() -> None:
    sides = [traffic(4, side, begin=begin, differ=0.3) for side, begin in (("a", 0), ("b", 300))]
    found = Gate("a", "b", limits=Limits(None, 0.3)).judge(*sides)
    assert found.verdict is INCONCLUSIVE
    assert "processes of each would decide" in found.sentence


def test_too_few_traces() -> None:
    found = Gate("1.0.0", "1.1.0", min_traces=500).judge(
        blocks(100, 0), blocks(600, 0, begin=1000), elapsed_ms=60_000
    )
    assert found.verdict is INCONCLUSIVE
    assert found.criteria == ()
    assert "100 and 600 traces can be compared, but 500 of each are needed" in found.sentence
    assert "about 4 more minutes would bring them" in found.sentence
    assert GATE.judge([], []).verdict is INCONCLUSIVE
    other = [count._replace(stratum="other") for count in blocks(600, 0)]
    assert GATE.judge(other, blocks(600, 0)).verdict is INCONCLUSIVE


def rate(outcome: Outcome, traffic_: Traffic, question: Gate, *, looks: int, runs: int) -> float:
    """How often a gate that is asked again and again ever gives this answer."""
    random = np.random.default_rng(5)
    found = 0
    for _ in range(runs):
        seen = look_again(*traffic_.generate(random), looks)
        found += any(question.judge(*sides).verdict is outcome for sides in seen)
    return found / runs


@pytest.mark.parametrize(
    ("outcome", "traffic_"),
    [
        (FAIL, Traffic(300, at_once=True)),
        (PASS, Traffic(300, at_once=True, candidate_errors=0.12)),
    ],
    ids=["the same never fails", "what is at the limit never passes"],
)
def test_looking_again_and_again_is_allowed(outcome: Outcome, traffic_: Traffic) -> None:
    question = Gate("a", "b", limits=Limits(0.10, None))
    assert rate(outcome, traffic_, question, looks=8, runs=8) == 0


def test_twice_the_limit_fails() -> None:
    question = Gate("a", "b", limits=Limits(0.10, None))
    assert rate(FAIL, Traffic(1000, at_once=True, candidate_errors=0.22), question, looks=2, runs=5) >= 0.8


@pytest.mark.parametrize(
    ("errors", "p95", "expected"),
    [
        ("1pp", "10%", (0.01, 0.1)),
        ("0.5 pp", "+150 %", (0.005, 1.5)),
        ("none", "0%", (None, 0.0)),
        ("100pp", "none", (1.0, None)),
    ],
)
def test_limits(errors: str, p95: str, expected: tuple[float | None, float | None]) -> None:
    limits = Limits.read(errors=errors, p95=p95)
    assert (limits.errors, limits.p95) == expected


@pytest.mark.parametrize(
    "text", ["", "1", "1%", "-1pp", "1e9pp", "nanpp", "101pp", "\u0661pp", "1" * 5000, "\0"]
)
def test_a_limit_that_cannot_be_read(text: str) -> None:
    with pytest.raises(FilterError, match="the limit for errors takes an increase such as 1pp") as error:
        Limits.read(errors=text)
    assert len(str(error.value)) < 200


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_is_a_limit_or_is_refused(text: str) -> None:
    with suppress(FilterError):
        limit = Limits.read(p95=text).p95
        assert limit is None or 0 <= limit < 10_000


def test_a_question_that_makes_no_sense() -> None:
    with pytest.raises(FilterError, match="a gate needs a limit"):
        Limits.read(errors="none", p95="none")
    with pytest.raises(FilterError, match="baseline and candidate are both"):
        Gate("1.0.0", "1.0.0")
    with pytest.raises(FilterError, match="candidate holds a lone surrogate"):
        Gate("1.0.0", "\ud800")


def versions(count: int, failing: int) -> list[Trace]:
    """Two versions at once on four processes each; of 1.1.0 every ``failing``-th trace does."""
    random = Random(3)
    traces = []
    for number in range(2 * count):
        version, turn = f"1.{number % 2}.0", number // 2
        traces.append(
            make_trace(
                number,
                version=version,
                at=START + number * 50,
                ms=100 * random.lognormvariate(0, 0.2),
                failed=number % 2 == 1 and turn % failing == 0,
                metadata={keys.INSTANCE_ID: f"{version}/{turn % 4}", "region": "eu"},
            )
        )
    return traces


def test_the_traces_of_a_store(tmp_path: Path) -> None:
    """The filter, the two values among others, and values that no trace has."""
    with closing(open_store(f"sqlite:///{tmp_path}/wherefrom.db")) as store:
        others = [make_trace(50_000 + number, version="1.0.1", failed=True) for number in range(40)]
        store.write([*versions(400, 5), *others])
        found = gate(GATE, "metadata.region = 'eu'", store=store)
        assert found.verdict is FAIL
        assert found.same_time
        assert found.processes == (4, 4)
        assert found.filter_string == "metadata.region = 'eu'"
        assert "errors 20.0 % against 0.0 %" in found.sentence
        assert gate(Gate("1.1.0", "1.0.0"), store=store).verdict is not FAIL
        by_state = gate(Gate("OK", "ERROR", by="status"), store=store, stratify=None)
        assert by_state.criteria
        missing = gate(Gate("1.0.0", "1.0.2"), store=store)
        assert missing.verdict is INCONCLUSIVE
        assert missing.sentence.endswith(": no trace has app_version '1.0.2'; did you mean 1.0.1 or 1.1.0?")
        assert "no trace has app_version '\\x00'" in gate(Gate("\0", "1.0.0"), store=store).sentence
        few = gate(Gate("1.0.1", "1.0.0", min_traces=41), store=store)
        assert "400 and 40 traces can be compared, but 41 of each are needed" in few.sentence
        with pytest.raises(FilterError, match="nobody"):
            gate(Gate("a", "b", by="nobody"), store=store)
