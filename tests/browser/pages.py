"""Every page there is, by name: what is true of all is tried on each."""

from __future__ import annotations

from typing import Final

from .test_trace import FAILED, LONG, STREAM, span_id

PAGES: Final = {
    "traces": "/traces?size=8",
    "filtered": "/traces?filter=status+%3D+%27ERROR%27&size=8",
    "nothing": "/traces?filter=name+%3D+%27nobody%27",
    "wrong": "/traces?filter=statis+%3D+1",
    "trace": f"/traces/{FAILED}",
    "stream": f"/traces/{STREAM}",
    "long": f"/traces/{LONG}",
    "span": f"/traces/{FAILED}?span={span_id(100, 2)}&search=e",
    "errors": "/errors",
    "sessions": "/sessions",
    "session": "/session?id=session-04",
    "compare": "/compare",
    "nothing-compared": "/compare?filter=name+%3D+%27nobody%27",
    "trends": "/trends?split=metadata.app_version",
    "two-traces": f"/compare/traces?a={STREAM}&b={FAILED}",
    "which-traces": "/compare/traces",
    "deployments": "/deployments",
    "status": "/status",
    "missing": "/nowhere",
}
"""Their addresses below the site; ``wrong`` and ``missing`` answer with an error, which browsers remark."""
REMARKS: Final = ("status of 400", "status of 404")
