"""Feedback on the Trace page, by its form and by the JSON API."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from wherefrom.client import TraceClient
from wherefrom.model import AssessmentError, Trace, new_assessment
from wherefrom.stores import Store
from wherefrom.web.application import make_application
from wherefrom.web.auth import Access

from ..conftest import HOSTILE, asking, get
from ..samples import make_trace
from .test_trace import make_chat


@pytest.fixture
def chat(store: Store) -> Trace:
    store.write([trace := make_chat()])
    return trace


def path_of(trace: Trace) -> str:
    return f"/traces/{trace.info.trace_id}"


def given(store: Store, trace: Trace) -> list[tuple[Any, ...]]:
    found = TraceClient(store).get_trace(trace.info.trace_id).info.assessments
    return [
        (one.name, one.value, one.rationale, str(one.source.source_type), one.source.source_id)
        for one in found
    ]


async def submit(client: httpx.AsyncClient, trace: Trace, **fields: str) -> httpx.Response:
    form = (await get(client, path_of(trace))).one("form", class_="assess")
    hidden = form.one("input", name="csrf").attributes["value"]
    return await client.post(form.attributes["action"], data={"csrf": hidden, "name": "helpful", **fields})


async def test_thumbs_scores_and_comments(client: httpx.AsyncClient, store: Store, chat: Trace) -> None:
    """By a form without scripts; who says it again replaces what they said, and may take it back."""
    answer = await submit(client, chat, verdict="bad", comment=" not\nenough ")
    assert (answer.status_code, answer.headers["location"]) == (303, path_of(chat))
    await submit(client, chat, verdict="good")
    for value in ("0.5", "7", "so so"):
        await submit(client, chat, name="score", value=value, by="ada")
    span = chat.data.spans[1].span_id
    await submit(client, chat, verdict="bad", span_id=span)
    assert given(store, chat) == [
        ("helpful", True, "not\nenough", "HUMAN", "default"),
        ("score", "so so", None, "HUMAN", "ada"),
        ("helpful", False, None, "HUMAN", "default"),
    ]
    page = await get(client, path_of(chat))
    texts = [" ".join(form.text.split()) for form in page.all("form", class_="given")]
    assert texts[0].startswith("helpful 👍 true not enoughHUMAN")
    assert "score so so HUMAN ada" in texts[1]
    assert f"span {span}" in texts[2]
    for form in page.all("form", class_="given"):
        fields = {one.attributes["name"]: one.attributes["value"] for one in form.all("input")}
        answer = await client.post(form.attributes["action"], data={**fields, "change": "remove"})
        assert answer.status_code == 303
    assert given(store, chat) == []


async def test_what_cannot_be_feedback_is_refused(
    client: httpx.AsyncClient, store: Store, chat: Trace
) -> None:
    """In a sentence; and no form of others stores anything."""
    for fields, status in (
        ({"value": " "}, 400),
        ({"verdict": "good", "name": " "}, 400),
        ({"verdict": "good", "by": "x" * 300}, 400),
        ({"change": "remove", "id": "a-1"}, 404),
    ):
        assert (await submit(client, chat, **fields)).status_code == status
    answer = await client.post(f"{path_of(chat)}/feedback", data={"name": "a", "verdict": "good"})
    assert answer.status_code == 403
    assert given(store, chat) == []


async def test_programs_post_json(client: httpx.AsyncClient, store: Store, chat: Trace) -> None:
    """MLflow's JSON comes back; every error is JSON too. A trace need not be stored yet."""
    place = f"/api{path_of(chat)}/feedback"
    source = {"source_type": "LLM_JUDGE", "source_id": "gpt-5"}
    body = {"name": "relevance", "value": 0.75, "comment": "on topic", "source": source}
    answer = await client.post(place, json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert (made["assessment_name"], made["feedback"], made["source"]) == (
        "relevance",
        {"value": 0.75},
        source,
    )
    assert given(store, chat) == [("relevance", 0.75, "on topic", "LLM_JUDGE", "gpt-5")]
    shown = (await client.get(f"{path_of(chat)}.json")).json()["feedback"]
    assert [(one["name"], one["value"], one["by"]) for one in shown] == [("relevance", 0.75, "gpt-5")]
    assert (await client.post("/api/traces/tr-later/feedback", json=body)).status_code == 201
    refused = [
        (body | {"value": None}, "the value of feedback takes true or false"),
        (body | {"rating": 5}, "unknown field 'rating'"),
        (body | {"source": "ROBOT"}, "source takes HUMAN, LLM_JUDGE or CODE"),
        ({"value": True}, "the name of feedback takes text, not None"),
        ([], "the body takes a JSON object"),
    ]
    for wrong, message in refused:
        answer = await client.post(place, json=wrong)
        assert (answer.status_code, message in answer.json()["message"]) == (400, True), answer.text
    answer = await client.post(place, content=b"{}", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]) == (415, "bad_media_type")
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = await client.post(place, json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "foreign_origin")
    assert (await client.get(place)).status_code == 405
    assert len(given(store, chat)) == 1


async def test_the_token_is_asked_for(store: Store, chat: Trace) -> None:
    place, body = f"/api{path_of(chat)}/feedback", {"name": "helpful", "value": True}
    async with asking(make_application(store, Access("secret"))) as client:
        answer = await client.post(place, json=body)
        assert (answer.status_code, answer.json()["error"]) == (401, "no_token")
        answer = await client.post(place, json=body, headers={"authorization": "Bearer secret"})
        assert answer.status_code == 201


async def test_hostile_feedback_is_text(client: httpx.AsyncClient, store: Store) -> None:
    """No name, value, comment or source of it is markup; a facet and a filter find it."""
    store.write([trace := make_trace(7)])
    trace_id = trace.info.trace_id
    source = {"source_type": "HUMAN", "source_id": HOSTILE}
    error = AssessmentError(HOSTILE, HOSTILE, HOSTILE)
    store.write_assessments(
        [
            new_assessment(trace_id, HOSTILE, HOSTILE, rationale=HOSTILE, source=source),
            new_assessment(trace_id, "judge", None, error=error, valid=False),
            new_assessment(trace_id, "tone", {"k": HOSTILE}),
            new_assessment(trace_id, "helpful", True),
        ]
    )
    page = await get(client, f"/traces/{trace_id}")
    assert page.all("script", src="") == page.all("img") == []
    assert len(page.all("form", class_="given")) == 4
    assert "overridden" in page.text
    facets = (await client.get("/facets.json", params={"since": "0"})).json()["facets"]
    (facet,) = [one for one in facets if one["title"] == "Feedback helpful"]
    assert [(one["value"], one["filter"]) for one in facet["values"]] == [
        ("true", "feedback.helpful = 'true'")
    ]
    found = await get(client, "/traces", since="0", filter="feedback.helpful = 'true'")
    assert any(trace_id in link.attributes.get("href", "") for link in found.all("a"))
