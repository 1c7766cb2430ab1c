"""What of a trace goes where in OTLP: the resource, the attributes of its root span, kinds and flags.

Names are OpenTelemetry's where its semantic conventions have one. MLflow's own keys keep their names, and
every other key is put under ``wherefrom.metadata.``. Tags are called as MLflow's own OTLP export calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from .. import keys
from ..model import Source, Span, SpanType, Trace, TraceInfo

REQUEST_ID: Final = "wherefrom.request_id"
METADATA_PREFIX: Final = "wherefrom.metadata."
TAG_PREFIX: Final = "mlflow.traceTag."

ATTRIBUTE_NAMES: Final = {
    keys.APP_VERSION: "service.version",
    keys.ENVIRONMENT: "deployment.environment.name",
    keys.DEPLOYMENT_ID: "deployment.id",
    keys.REGION: "cloud.region",
    keys.GIT_COMMIT: "vcs.ref.head.revision",
    keys.GIT_BRANCH: "vcs.ref.head.name",
    keys.GIT_REPO_URL: "vcs.repository.url.full",
    keys.OS_USER: "process.owner",
    keys.SESSION: "session.id",
    keys.USER: "user.id",
}
"""Metadata key → attribute name, of the resource or, where a trace differs from its process, of its root."""

OFTEN_OWN: Final = (
    (keys.SESSION, ATTRIBUTE_NAMES[keys.SESSION]),
    (keys.USER, ATTRIBUTE_NAMES[keys.USER]),
    (keys.TOKEN_USAGE, keys.TOKEN_USAGE),
)
"""Metadata that most traces have of their own, and the names it is sent as."""

LEFT_OUT: Final = frozenset({keys.SCHEMA_VERSION, keys.TRACE_INPUTS, keys.TRACE_OUTPUTS})
"""Metadata that is not sent: what the root span says anyway."""

_NOT_KNOWN: Final = {keys.DEPLOYMENT_ID: "unknown", keys.REGION: "unknown"}

# opentelemetry/proto/trace/v1/trace.proto, enum SpanKind
INTERNAL: Final = 1
KINDS: Final[dict[str, int]] = {SpanType.SERVER: 2, SpanType.CLIENT: 3, "PRODUCER": 4, "CONSUMER": 5}
"""Span type → ``SpanKind``; every other type is ``INTERNAL``."""

# trace.proto, enum SpanFlags: sampled; bits 8 and 9 say whether the parent is in another process.
LOCAL_PARENT: Final = 0x001 | 0x100
REMOTE_PARENT: Final = LOCAL_PARENT | 0x200


def root_of(trace: Trace) -> Span | None:
    """The root span, or ``None`` in a fragment: one span that ended after its trace was handed over."""
    root = trace.root
    if root is None or root.parent_id is None or type(trace) is not Trace or len(trace.data.spans) > 1:
        return root
    return root if root.span_type == SpanType.SERVER else None  # a request that joined its caller's trace


def source_of(info: TraceInfo) -> Source:
    """The process that a trace comes from, read from its metadata where it came from elsewhere."""
    if info.source is not None:
        return info.source
    return Source({key: value for key, value in info.trace_metadata.items() if key in keys.SOURCE_KEYS})


def resource_attributes(
    source: Mapping[str, str], experiment: str, configured: Mapping[str, str]
) -> dict[str, Any]:
    """The process that traces come from; what is ``configured`` for OpenTelemetry wins.

    OpenTelemetry semantic conventions: resource attributes of service, deployment, cloud and vcs.
    """
    attributes = {
        "service.name": experiment,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "wherefrom",
    }
    for key, value in source.items():
        if key not in LEFT_OUT and _NOT_KNOWN.get(key) != value:
            attributes[name_of(key)] = value
    return attributes | dict(configured)


def more_attributes(
    metadata: Mapping[str, str], source: Mapping[str, str], tags: Mapping[str, str], *, for_mlflow: bool
) -> dict[str, str]:
    """A trace's metadata where it is not that of its source, and its tags, by the names they are sent as.

    MLflow's server reads a trace's name from a tag, others from the root span.
    """
    attributes = {
        name_of(key): value
        for key, value in metadata.items()
        if source.get(key) != value and key not in LEFT_OUT
    }
    for key, value in tags.items():
        if for_mlflow or key != keys.TRACE_NAME_TAG:
            attributes[TAG_PREFIX + key] = value
    return attributes


@lru_cache(maxsize=1000)
def name_of(key: str) -> str:
    """The attribute that a piece of metadata is sent as."""
    return ATTRIBUTE_NAMES.get(key) or (key if key.startswith("mlflow.") else METADATA_PREFIX + key)
