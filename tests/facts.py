"""Records of facts, as the middleware makes them of plain requests."""

from __future__ import annotations

from typing import Any

from wherefrom.model import Source
from wherefrom.model.record import Facts, FactsTuple

SOURCE = Source({"app_version": "1"})
_PLAIN = Facts(
    random_24=1,
    random_56=1,
    random_63=1,
    started_ns=1_700_000_000 * 10**9,
    ended_ns=1_700_000_000 * 10**9 + 5_000_000,
    client_request_id="r-1",
    session_id=None,
    user_id=None,
    name="GET",
    status=200,
    size=1,
    path="/",
    link=None,
    shared='{"wherefrom.outcome":"completed"}',
    rest=None,
    experiment="default",
    source=SOURCE.digest,
)


def make_facts(number: int, **changes: Any) -> FactsTuple:
    """The facts of one request; ``number`` makes its trace id its own."""
    return tuple(_PLAIN._replace(random_56=number, **changes))
