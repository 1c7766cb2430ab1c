"""Random filters and orders, answered by real MLflow and by us on the same traces."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from wherefrom.client import TraceClient
from wherefrom.exceptions import FilterError

from ..mlflow.server import MISSING, mlflow_python
from . import recorded
from .asking import Asker

TRACES = [trace for trace in recorded.load_traces().values() if trace.info.experiment == "main"]
ASSESSED = [one for trace in TRACES for one in trace.info.assessments]
OPERATORS = ("=", "!=", "LIKE", "ILIKE", "RLIKE")
LISTS = ("IN", "NOT IN")
NULLS = ("IS NULL", "IS NOT NULL")
RELATIONS = ("=", "!=", ">", ">=", "<", "<=")
# What MLflow takes for a field of the trace in whatever family it is asked for; what it keeps elsewhere too.
TAKEN_OVER = {"name", "run_id", "prompt", "text", "timestamp", "execution_time", "end_time"}
LINKED = {"mlflow.sourceRun"}
REGEXES = ("^a", "a$", ".", "^$", r"\d+", "(?i)PROD", "[01]$", "^(a|b|1)", r"^\w+$", "é")


def _questions() -> list[tuple[str | None, list[str] | None]]:
    random = Random(3172)
    filters = [(_some_filter(random), None) for _ in range(500)]
    return [*filters, *((None, _some_order(random)) for _ in range(50))]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[list[str] | None]:
    """What MLflow answers; ``None`` to what it refuses."""
    return _ask_mlflow(tmp_path_factory.mktemp("mlflow"), _questions())


def test_mlflow_gives_the_same_answers(recorded_client: TraceClient, answers: list[list[str] | None]) -> None:
    """Wherever MLflow has an answer, ours is the same; what it refuses may mean something here."""
    assert sum(answer is not None for answer in answers) > 375
    assert sum(bool(answer) for answer in answers) > 125
    with recorded_client._store().snapshot() as snapshot:
        asker = Asker(snapshot, [trace.info.trace_id for trace in TRACES], ("main",))
        differing = [
            f"{text or order}: {found} here, {answer} there"
            for (text, order), answer in zip(_questions(), answers, strict=True)
            if answer is not None and (found := _ask(asker, text, order)) != answer
        ]
    assert differing == []


def _ask_mlflow(folder: Path, questions: list[Any]) -> list[list[str] | None]:
    python = mlflow_python()
    if python is None:
        pytest.skip(MISSING)
    given = {"traces": [trace.to_dict() for trace in TRACES], "questions": questions}
    (folder / "questions.json").write_text(json.dumps(given), encoding="utf-8")
    worker = Path(__file__).with_name("mlflow_answers.py")
    subprocess.run([python, str(worker), str(folder)], check=True, capture_output=True, timeout=300)
    answers: list[list[str] | None] = json.loads((folder / "answers.json").read_bytes())
    return answers


def _ask(asker: Asker, text: str | None, order: list[str] | None) -> list[str] | str:
    try:
        return asker.ids(text, order)
    except FilterError as error:
        return str(error)


def _some_filter(random: Random) -> str:
    conditions = [_some_condition(random) for _ in range(random.choice((1, 1, 2, 3)))]
    return random.choice((" AND ", " and ", "\nAND\t")).join(conditions)


def _some_condition(random: Random) -> str:
    trace = random.choice(TRACES)
    info = trace.info
    match random.choice(("metadata", "metadata", "tag", "attribute", "time", "span", "feedback")):
        case "feedback":
            return _on_feedback(random)
        case "metadata":
            return _on_a_pair(random, random.choice(("metadata", "request_metadata")), info.trace_metadata)
        case "tag":
            return _on_a_pair(random, random.choice(("tag", "tags")), info.tags)
        case "attribute":
            fields = {
                "name": info.tags.get("mlflow.traceName", ""),
                "status": info.state.value,
                "request_id": info.trace_id,
                "client_request_id": info.client_request_id or "",
            }
            return _on_one_of(random, random.choice(("", "attributes.", "attribute.", "trace.")), fields)
        case "time":
            name = random.choice(("timestamp_ms", "execution_time", "execution_time_ms", "end_time_ms"))
            times = (info.request_time, info.execution_duration, info.request_time + 10, 0, -1, 10.5)
            return f"attributes.{name} {random.choice(RELATIONS)} {random.choice(times) or 0}"
        case _:
            spans = trace.data.spans
            span = random.choice(spans) if spans else TRACES[0].data.spans[0]
            fields = {"name": span.name, "type": span.span_type, "status": span.status.code.value}
            return _on_one_of(random, "span.", fields)


def _on_feedback(random: Random) -> str:
    one = random.choice(ASSESSED)
    field = f"{one.kind}.{one.name}"
    if random.random() < 0.3:
        return f"{field} {random.choice(('>', '>=', '<', '<='))} {random.choice((0, 0.2, 0.9, 42, -1.5))}"
    return _compared(random, field, random.choice((one.text, one.json)), NULLS)


def _on_a_pair(random: Random, family: str, pairs: dict[str, str]) -> str:
    known = [key for key in pairs if key.lower() not in TAKEN_OVER and key not in LINKED] or ["nobody has it"]
    key = random.choice(known)
    family = random.choice((family, f"`{family}`"))
    return _compared(
        random, f'{family}."{key}"' if "`" in key else f"{family}.`{key}`", pairs.get(key, ""), NULLS
    )


def _on_one_of(random: Random, prefix: str, fields: dict[str, str]) -> str:
    name = random.choice(list(fields))
    return _compared(random, prefix + name, fields[name], (*LISTS, *NULLS))


def _compared(random: Random, field: str, value: str, others: tuple[str, ...]) -> str:
    operator = random.choice((*OPERATORS, *others))
    match operator:
        case "IS NULL" | "IS NOT NULL":
            return f"{field} {operator}"
        case "IN" | "NOT IN":
            return f"{field} {operator} ({_quoted(value)}, 'OK', 'chat'{random.choice(('', ','))})"
        case "RLIKE":
            return f"{field} RLIKE {_quoted(random.choice(REGEXES))}"
        case "LIKE" | "ILIKE":
            start = random.randrange(len(value) + 1)
            pattern = random.choice(
                (value, f"{value[:start]}%", f"%{value[start:]}", f"%{value.swapcase()}%")
            )
            return f"{field} {operator} {_quoted(pattern)}"
    return f"{field} {operator} {_quoted(random.choice((value, value.swapcase(), '')))}"


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


def _some_order(random: Random) -> list[str]:
    keys = ["timestamp", "execution_time_ms", "status", "request_id", "name", "run_id", "tag.team"]
    keys += ["metadata.env", "metadata.`app_version`", "metadata.nobody", "trace.timestamp_ms"]
    chosen = random.sample(keys, random.choice((1, 2, 3)))
    return [key + random.choice(("", " ASC", " DESC", " desc")) for key in chosen]
