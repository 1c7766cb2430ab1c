"""Messages about incidents, in the form that their receiver takes, and how they are sent.

Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks. Teams: an Adaptive Card for
a workflow that starts "When a Teams webhook request is received"; the connectors of Office 365 are retired.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

import orjson

from .._sanitize import visible
from .._units import spoken_utc
from ..exceptions import MissingExtraError, StoreUnavailableError
from ..stores.incidents import Message
from .rules import Webhook

TIMEOUT_S: Final = 10.0
_LONGEST_TEXT: Final = 2_000  # Slack takes 3,000 characters in a section
_LONGEST_TITLE: Final = 150  # of a header of Slack


class UndeliveredError(StoreUnavailableError):
    """A receiver that has not accepted a message; ``pause_ms`` is how long it asks to wait."""

    def __init__(self, message: str, pause_ms: float = 0) -> None:
        super().__init__(message)
        self.pause_ms = pause_ms


def send(webhook: Webhook, message: Message, page: str | None) -> None:
    """Send a message; ``page`` is the address that its link begins with.

    Each attempt has the same ``Idempotency-Key``.

    Raises:
        UndeliveredError: the receiver cannot be reached, or its status is not 2xx.
        MissingExtraError: there is no HTTP client.
    """
    try:
        from ..exporters.http import NotNowError, Remote
    except MissingExtraError:
        raise MissingExtraError("alerts", "httpx") from None
    endpoint = webhook.endpoint
    headers = {
        "content-type": "application/json",
        "user-agent": "wherefrom",
        "idempotency-key": message.key,
    }
    remote = Remote(
        endpoint,
        headers=headers,
        timeout=TIMEOUT_S,
        ssl_context=None,
        environ=os.environ,
        clock=time.monotonic,
    )
    connection = remote.connect()
    try:
        body = orjson.dumps(make_body(webhook.form, message, page))
        response = remote.request(connection, "POST", endpoint.target, remote.headers, body)
    except NotNowError as error:
        raise UndeliveredError(_without_target(str(error), webhook)) from None
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        said = f": {response.message()}" if response.message() else ""
        raise UndeliveredError(
            _without_target(f"{endpoint.url} answered {response.status}{said}", webhook),
            1000 * (response.pause() or 0),
        )


def make_body(form: str, message: Message, page: str | None) -> dict[str, Any]:
    """The body of a message: what a program reads, or a card for people."""
    incident = message.incident
    link = f"{page}{incident.link}" if page and incident.link else None
    is_over = message.status == "resolved"
    title = visible(f"{'Resolved' if is_over else 'Alert'}: {incident.rule}")[:_LONGEST_TITLE]
    text = visible(incident.text[:_LONGEST_TEXT])
    when = f"since {spoken_utc(incident.began)}"
    if is_over:
        when = f"from {spoken_utc(incident.began)} to {spoken_utc(incident.last_fired)}"
    if form == "slack":
        return _slack(title, text, when, link)
    if form == "teams":
        return _teams(title, text, when, link, is_over=is_over)
    return {
        "key": message.key,
        "status": message.status,
        "rule": incident.rule,
        "incident": incident.key,
        "subject": incident.subject,
        "text": incident.text,
        "began": incident.began,
        "last_fired": incident.last_fired,
        "ended": incident.ended,
        "link": link,
    }


def _slack(title: str, text: str, when: str, link: str | None) -> dict[str, Any]:
    about = _escaped(when) + (f" · <{_escaped(link)}|Show the traces>" if link else "")
    return {
        "text": _escaped(f"{title}: {text}"),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": title, "emoji": False}},
            {"type": "section", "text": {"type": "plain_text", "text": text or "-", "emoji": False}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": about, "verbatim": True}]},
        ],
        "unfurl_links": False,
    }


def _escaped(text: str) -> str:
    """Text in which Slack finds no link and no mention, such as ``<!channel>``."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _teams(title: str, text: str, when: str, link: str | None, *, is_over: bool) -> dict[str, Any]:
    def run(words: str, **style: Any) -> dict[str, Any]:
        # A run of text, unlike a TextBlock, has no Markdown.
        return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": words, **style}]}

    colour = "Good" if is_over else "Attention"
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            run(title, weight="Bolder", size="Medium", color=colour),
            run(text),
            run(when, isSubtle=True, size="Small"),
        ],
    }
    if link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Show the traces", "url": link}]
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return {"type": "message", "attachments": [attachment]}


def _without_target(text: str, webhook: Webhook) -> str:
    """The text without the secret part of the address, which a receiver may repeat in its answer."""
    target = webhook.endpoint.target
    return text.replace(target, "/…") if len(target) > 1 else text
