"""The forms of messages: JSON for programs, a message of Slack, and a card of Teams."""

from __future__ import annotations

import pytest

from wherefrom.alerts.delivery import UndeliveredError, make_body, send
from wherefrom.alerts.rules import Webhook
from wherefrom.exporters.endpoint import Endpoint
from wherefrom.stores.incidents import Incident, Message, Status

HOSTILE = "<!channel> [x](http://evil) \x1b[2J\u202e & <http://evil|x>" + "y" * 4000


def message(text: str = "5 % of traces", status: Status = "firing") -> Message:
    incident = Incident(
        key="k",
        rule="errors",
        subject="",
        text=text,
        link="/traces?since=1&until=2",
        began=1_700_000_000_000,
        last_fired=1_700_000_060_000,
        ended=1_700_000_400_000 if status == "resolved" else None,
        delivered=None,
        attempts=0,
        problem=None,
    )
    return Message(f"k-{status}", status, 1, incident)


def test_json_has_all_that_is_known() -> None:
    body = make_body("json", message(status="resolved"), "https://page")
    assert body == {
        "key": "k-resolved",
        "status": "resolved",
        "rule": "errors",
        "incident": "k",
        "subject": "",
        "text": "5 % of traces",
        "began": 1_700_000_000_000,
        "last_fired": 1_700_000_060_000,
        "ended": 1_700_000_400_000,
        "link": "https://page/traces?since=1&until=2",
    }
    assert make_body("json", message(), None)["link"] is None


def test_slack_gets_blocks_without_mentions_or_links_of_others() -> None:
    """Text that traces hold is plain; the one link is ours, and lengths are those that Slack takes."""
    body = make_body("slack", message(HOSTILE), "https://page")
    header, section, context = body["blocks"]
    assert header["text"] == {"type": "plain_text", "text": "Alert: errors", "emoji": False}
    assert section["text"]["type"] == "plain_text"
    assert section["text"]["text"].isprintable()
    assert len(section["text"]["text"]) <= 3000
    assert "<" not in body["text"]
    assert context["elements"][0]["text"] == (
        "since 2023-11-14 22:13:20.000 UTC · <https://page/traces?since=1&amp;until=2|Show the traces>"
    )
    assert "<" not in make_body("slack", message(), None)["blocks"][2]["elements"][0]["text"]


def test_teams_gets_an_adaptive_card_without_markdown() -> None:
    body = make_body("teams", message(HOSTILE, "resolved"), "https://page")
    (attachment,) = body["attachments"]
    assert (body["type"], attachment["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    card = attachment["content"]
    assert card["type"] == "AdaptiveCard"
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    runs = [run for block in card["body"] for run in block["inlines"]]
    assert runs[0]["text"] == "Resolved: errors"
    assert all(run["text"].isprintable() for run in runs)
    assert card["actions"] == [
        {"type": "Action.OpenUrl", "title": "Show the traces", "url": "https://page/traces?since=1&until=2"}
    ]
    assert "actions" not in make_body("teams", message(), None)["attachments"][0]["content"]


def test_a_receiver_that_is_not_there_is_named_without_its_secret() -> None:
    endpoint = Endpoint.parse("http://127.0.0.1:1/secret", complete=False)
    with pytest.raises(UndeliveredError) as raised:
        send(Webhook(endpoint, "json"), message(), None)
    assert "cannot be reached" in str(raised.value)
    assert "secret" not in str(raised.value)
