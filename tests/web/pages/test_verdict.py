"""The verdict that controllers of canaries ask for, as Argo Rollouts and Flagger do."""

from __future__ import annotations

import ast
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from jsonschema import Draft202012Validator

from wherefrom import TraceState, keys
from wherefrom.model import Trace
from wherefrom.stores import Store, open_store
from wherefrom.web.application import make_application
from wherefrom.web.auth import Access

from ..conftest import asking
from ..samples import START, make_trace

ROOT = Path(__file__).parents[3]
CANARY = ROOT / "examples" / "canary"
SCHEMAS = ROOT / "tests" / "data" / "canary"
ARGO = [*yaml.safe_load_all((CANARY / "argo-rollouts-analysis-template.yaml").read_text())]
FLAGGER = yaml.safe_load((CANARY / "flagger-canary.yaml").read_text())
PAYLOAD = {"name": "orders", "namespace": "shop", "phase": "Progressing", "metadata": {}}
OUTCOMES = {"1.1.0": "pass", "1.2.0": "fail", "1.3.0": "inconclusive", "1.4.0": "inconclusive"}
"""The candidates: as the baseline, one that fails more often, one with few traces, one with none."""


def release(version: str, count: int, failing: float, first: int) -> Iterator[Trace]:
    random = Random(version)
    for number in range(count):
        yield make_trace(
            first + number,
            version=version,
            request_time=START + number * 600_000 // count,
            ms=1000 * random.lognormvariate(0, 0.1),
            state=TraceState.ERROR if random.random() < failing else TraceState.OK,
            metadata={keys.INSTANCE_ID: f"{version}/{number % 4}"},
            spans=[],
        )


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('verdict') / 'wherefrom.db'}")
    store.write(
        [
            *release("1.0.0", 4000, 0.001, 0),
            *release("1.1.0", 4000, 0.001, 10_000),
            *release("1.2.0", 1000, 0.1, 20_000),
            *release("1.3.0", 60, 0.0, 30_000),
        ]
    )
    yield store
    store.close()


@pytest.fixture(scope="module")
def page(released: Store) -> Any:
    return make_application(released, Access("secret"))


def with_token(page: Any) -> httpx.AsyncClient:
    return asking(page, headers={"authorization": "Bearer secret"})


async def test_the_verdict_has_what_judges_read(page: Any) -> None:
    async with with_token(page) as client:
        answers = {
            candidate: await client.get("/api/verdict", params={"baseline": "1.0.0", "candidate": candidate})
            for candidate in OUTCOMES
        }
    assert {one.status_code for one in answers.values()} == {200}
    found = {candidate: answer.json() for candidate, answer in answers.items()}
    assert {candidate: one["verdict"] for candidate, one in found.items()} == OUTCOMES
    assert found["1.1.0"]["score"] == 100
    assert found["1.2.0"]["score"] == 0
    assert 0 < found["1.3.0"]["score"] < 100
    failed = found["1.2.0"]
    assert (failed["baseline"], failed["candidate"], failed["by"]) == ("1.0.0", "1.2.0", "app_version")
    assert failed["criteria"][0]["measure"] == "errors"
    assert failed["criteria"][0]["result"] == "fail"
    assert failed["sentence"].startswith("1.2.0 fails: it is worse than 1.0.0 by more than a limit: errors")
    assert "no trace has app_version '1.4.0'" in found["1.4.0"]["sentence"]


async def test_limits_filters_and_times_are_parameters(page: Any) -> None:
    base = "/api/verdict?baseline=1.0.0&candidate=1.2.0"
    async with with_token(page) as client:
        lax = await client.get(f"{base}&max_error_increase=50pp&max_p95_increase=100%25")
        raw = await client.get(f"{base}&max_error_increase=50pp&max_p95_increase=100%")
        none = await client.get(f"{base}&filter=metadata.region = 'mars'")
        later = await client.get(f"{base}&since=2100-01-01&until=2100-01-02")
    assert lax.json()["criteria"][0]["result"] == "pass"
    assert raw.json() == lax.json()
    assert none.json()["verdict"] == later.json()["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("candidate=1.1.0", "baseline: expected a value of app_version"),
        ("baseline=1.1.0&candidate=1.1.0", "are both '1.1.0'"),
        ("baseline=a&candidate=b&max_error_increase=1%25", "takes an increase such as 1pp"),
        ("baseline=a&candidate=b&max_p95_increase=10pp", "takes an increase such as 10%"),
        ("baseline=a&candidate=b&hook=never", "hook:"),
        ("baseline=a&candidate=b&limit=1", "unknown parameter 'limit'"),
        ("baseline=a&candidate=b&by=nobody", "nobody"),
    ],
)
async def test_a_question_that_cannot_be_asked_is_refused(page: Any, query: str, message: str) -> None:
    """With 400 for both methods, which neither promotes nor rolls back."""
    async with with_token(page) as client:
        for answer in (
            await client.get(f"/api/verdict?{query}"),
            await client.post(f"/api/verdict?{query}", json=PAYLOAD),
        ):
            assert answer.status_code == 400
            assert message in answer.json()["message"]


async def test_the_token_is_needed_in_one_of_two_ways(page: Any) -> None:
    """Without it a program gets 401 as JSON, not the login; Flagger's comes in the address, as Basic."""
    path = "/api/verdict?baseline=1.0.0&candidate=1.1.0"
    async with asking(page) as client:
        for answer in (await client.get(path), await client.post(path, json=PAYLOAD)):
            assert answer.status_code == 401
            assert answer.json()["error"] == "no_token"
        for user, status in (("flagger:secret", 200), ("secret:flagger", 401), ("secret", 401)):
            header = {"authorization": f"Basic {b64encode(user.encode()).decode()}"}
            assert (await client.get(path, headers=header)).status_code == status
        for text in (b"Basic \x80", b"Basic ====", b"Basic /w==", b"Basic"):
            answer = await client.get(path, headers=[(b"authorization", text)])
            assert answer.status_code == 401
        too_large = await client.post(path, content=b"x" * 1_000_001, auth=("flagger", "secret"))
        assert too_large.status_code == 413


def measured(metric: dict[str, Any], result: Any) -> str:
    """The phase that Argo Rollouts gives a measurement, after utils/evaluate/evaluate.go."""
    success, failure = (str(metric.get(f"{name}Condition", "")) for name in ("success", "failure"))
    failed = holds(failure, result) if failure else not holds(success, result)
    succeeded = holds(success, result) if success else not failed
    return "Failed" if failed else "Successful" if succeeded else "Inconclusive"


def holds(condition: str, result: Any) -> bool:
    """A comparison such as ``result.verdict == 'pass'``, on what was really answered."""
    tree = ast.parse(condition, mode="eval").body
    assert isinstance(tree, ast.Compare)
    assert isinstance(tree.ops[0], ast.Eq)

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Attribute):
            return value(node.value)[node.attr]
        if isinstance(node, ast.Name):
            return {"result": result}[node.id]
        assert isinstance(node, ast.Constant)
        return node.value

    return bool(value(tree.left) == value(tree.comparators[0]))


async def test_argo_rollouts_reads_the_answer(page: Any) -> None:
    """Its conditions, on the JSON at the address of the manifest: aborts, waits and promotes."""
    phases: dict[str, list[str]] = {}
    for template in ARGO:
        metric = template["spec"]["metrics"][0]
        web = metric["provider"]["web"]
        for candidate in OUTCOMES:
            values = {one["name"]: one.get("value") for one in template["spec"]["args"]}
            values |= {"baseline": "1.0.0", "candidate": candidate, "token": "secret"}
            url, header = web["url"], web["headers"][0]["value"]
            for name, value in values.items():
                url, header = (text.replace(f"{{{{args.{name}}}}}", value or "") for text in (url, header))
            address = urlsplit(url)
            async with asking(page, headers={web["headers"][0]["key"]: header}) as client:
                answer = await client.get(f"{address.path}?{address.query}")
            assert answer.status_code == 200
            phases.setdefault(template["metadata"]["name"], []).append(measured(metric, answer.json()))
    assert phases == {
        "wherefrom-watch": ["Successful", "Failed", "Successful", "Successful"],
        "wherefrom-promote": ["Successful", "Failed", "Inconclusive", "Inconclusive"],
    }


async def test_flagger_is_told_by_the_status(page: Any) -> None:
    """2xx of a hook means go on, promote, or roll back, by its type; its body goes into Flagger's events."""
    told: dict[str, list[bool]] = {}
    for hook in FLAGGER["spec"]["analysis"]["webhooks"]:
        for candidate, verdict in OUTCOMES.items():
            url = hook["url"].replace("${BASELINE}", "1.0.0").replace("${VERSION}", candidate)
            address = urlsplit(url.replace("${TOKEN}", "secret"))
            async with asking(page, auth=(address.username or "", address.password or "")) as client:
                answer = await client.post(f"{address.path}?{address.query}", json=PAYLOAD)
            assert answer.status_code in {200, 409}
            assert answer.json()["verdict"] == verdict
            told.setdefault(hook["type"], []).append(answer.status_code == 200)
    assert told == {
        "rollback": [False, True, False, False],
        "rollout": [True, False, True, True],
        "confirm-promotion": [True, False, False, False],
    }


@pytest.mark.parametrize(
    ("schema", "documents"),
    [("analysis-template", ARGO), ("flagger-canary", [FLAGGER])],
    ids=["argo", "flagger"],
)
def test_the_manifests_are_what_the_controllers_take(schema: str, documents: list[Any]) -> None:
    validator = Draft202012Validator(yaml.safe_load((SCHEMAS / f"{schema}.json").read_text()))
    for document in documents:
        assert [error.message for error in validator.iter_errors(document)] == []


def test_an_hour_without_a_decision_is_no_success() -> None:
    """Argo Rollouts takes a metric whose count is reached as successful, unless a limit was exceeded."""
    metric = ARGO[1]["spec"]["metrics"][0]
    assert metric["inconclusiveLimit"] < metric["count"]
