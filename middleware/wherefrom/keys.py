"""Names of metadata, tags and attributes: MLflow's and OpenTelemetry's, spelled once."""

from __future__ import annotations

from typing import Final

SOURCE_NAME: Final = "mlflow.source.name"
SOURCE_TYPE: Final = "mlflow.source.type"
GIT_COMMIT: Final = "mlflow.source.git.commit"
GIT_BRANCH: Final = "mlflow.source.git.branch"
GIT_REPO_URL: Final = "mlflow.source.git.repoURL"
GIT_DIRTY: Final = "mlflow.source.git.dirty"
OS_USER: Final = "mlflow.user"
MODEL_ID: Final = "mlflow.modelId"
SCHEMA_VERSION: Final = "mlflow.trace_schema.version"
ENVIRONMENT: Final = "environment"
APP_VERSION: Final = "app_version"
DEPLOYMENT_ID: Final = "deployment_id"
REGION: Final = "region"
INSTANCE_ID: Final = "service.instance.id"
"""The process that served a request: beside the source and not in it, so a restart makes no new source."""

PART: Final = "wherefrom.part"
"""Metadata of a trace while its origin has not been written: the root span of the part that stands for it."""
PART_EDITS: Final = "wherefrom.part_edits"
"""Metadata of such a trace: the tags that were edited in it, as JSON; ``null`` for those removed."""
PART_SOURCE: Final = "wherefrom.source"
"""Attribute of the root span of a service that continued a caller's trace: its source, as JSON."""

SESSION: Final = "mlflow.trace.session"
USER: Final = "mlflow.trace.user"
TRACE_INPUTS: Final = "mlflow.traceInputs"
TRACE_OUTPUTS: Final = "mlflow.traceOutputs"
TOKEN_USAGE: Final = "mlflow.trace.tokenUsage"
COST: Final = "mlflow.trace.cost"
MODELS: Final = "wherefrom.models"
"""Metadata: the names of the models that answered, in the order of their first calls, joined by ``, ``."""
FIRST_TOKEN: Final = "wherefrom.time_to_first_token_ms"
FEATURE_FLAG_PREFIX: Final = "feature_flag_"

TRACE_NAME_TAG: Final = "mlflow.traceName"
SPANS_LOCATION_TAG: Final = "mlflow.trace.spansLocation"

SPAN_TRACE_ID: Final = "mlflow.traceRequestId"
SPAN_TYPE: Final = "mlflow.spanType"
SPAN_INPUTS: Final = "mlflow.spanInputs"
SPAN_OUTPUTS: Final = "mlflow.spanOutputs"
SPAN_FUNCTION_NAME: Final = "mlflow.spanFunctionName"
CHUNK_EVENT_PREFIX: Final = "mlflow.chunk.item."
CHUNK_VALUE: Final = "mlflow.chunk.value"
CHAT_TOKEN_USAGE: Final = "mlflow.chat.tokenUsage"
LLM_COST: Final = "mlflow.llm.cost"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

ERROR_TYPE: Final = "error.type"
OTHER_REQUEST_ID: Final = "wherefrom.client_request_id"
"""Metadata: a request id that the app set after another one was sent to the client."""
STATUS: Final = "status.description"

DROPPED_ATTRIBUTES: Final = "wherefrom.dropped_attributes_count"
DROPPED_EVENTS: Final = "wherefrom.dropped_events_count"
DROPPED_METADATA: Final = "wherefrom.dropped_metadata_count"
DROPPED_TAGS: Final = "wherefrom.dropped_tags_count"
"""How many were past the limits: attributes and events in an attribute, the others in the metadata."""

SOURCE_KEYS: Final = frozenset(
    {
        SOURCE_NAME,
        SOURCE_TYPE,
        GIT_COMMIT,
        GIT_BRANCH,
        GIT_REPO_URL,
        GIT_DIRTY,
        OS_USER,
        MODEL_ID,
        SCHEMA_VERSION,
        ENVIRONMENT,
        APP_VERSION,
        DEPLOYMENT_ID,
        REGION,
    }
)
"""Metadata that is the same for every trace of one process, unless a trace overrides it."""
