"""The Alerts page and its twin."""

from __future__ import annotations

from pathlib import Path

import httpx

from wherefrom.alerts.alerting import Alerting
from wherefrom.stores import Store
from wherefrom.web.application import make_application
from wherefrom.web.auth import Access

from ..conftest import HOSTILE, asking, get
from ..samples import START, make_traces

RULES = """
webhook = "http://127.0.0.1:1/secret"
[[rule]]
name = "errors"
where = "metadata.region = 'eu-1'"
filter = "status = 'ERROR'"
above = "5%"
[[rule]]
name = "worse <b>"
by = "app_version"
form = "slack"
"""


async def test_rules_and_incidents_are_shown(store: Store, tmp_path: Path) -> None:
    """Values of traces are text, webhooks are masked, and the link of an incident works."""
    store.write(make_traces(60, failed=True))
    file = tmp_path / "alerts.toml"
    file.write_text(RULES)
    alerts = Alerting(store, str(file), clock=lambda: START + 100_000)
    alerts.run_once()
    alerts.incidents.record(
        "worse <b>",
        HOSTILE,
        fires=True,
        text=HOSTILE,
        link="",
        now=START,
        quiet_ms=1,
        resolved=True,
    )
    async with asking(make_application(store, Access(), alerts=alerts)) as client:
        page = await get(client, "/alerts")
        first, second = page.one("main").all("tbody")
        rows = [row.text for row in first.all("tr")]
        assert "incident since" in rows[0].replace("\n", " ")
        assert "more than 5 % of traces match status = 'ERROR'" in rows[0]
        assert "the newest app_version is worse than the one before" in rows[1]
        assert "http://127.0.0.1:1/…" in rows[0]
        seen = second.all("tr")
        assert "100 % of 60 traces in the last 5 min 00 s match status = 'ERROR'" in seen[0].text
        assert "not delivered, 1 attempt: http://127.0.0.1:1/… cannot be reached" in seen[0].text
        assert (await client.get(seen[0].one("a").attributes["href"])).status_code == 200
        assert not page.all("img")
        twin = await client.get("/alerts.json")
    assert "secret" not in twin.text
    found = twin.json()
    assert [rule["name"] for rule in found["rules"]] == ["errors", "worse <b>"]
    assert [one["rule"] for one in found["incidents"]] == ["errors", "worse <b>"]


async def test_without_rules_the_page_tells_how(client: httpx.AsyncClient) -> None:
    page = await get(client, "/alerts")
    assert "set WHEREFROM_ALERTS to its path" in page.one("main").text
    assert (await client.get("/alerts.json")).json()["file"] is None
