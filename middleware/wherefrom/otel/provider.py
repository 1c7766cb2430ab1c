"""OpenTelemetry's tracer provider, and what we use of it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import trace as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ..process import ledger, logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler


_NAME: Final = "wherefrom"


class Pipeline:
    """The parts of a provider that we use: its sampler, resource and span processors.

    A tracer of the SDK has them; with another implementation every trace is sampled and there is no listener.
    """

    def __init__(self, provider: otel.TracerProvider, processor: SpanProcessor) -> None:
        release = version(_NAME)
        tracer: Any = provider.get_tracer(_NAME, release)
        # Not the provider itself, which is the key that this is kept under.
        self._own = provider if isinstance(provider, OwnProvider) else None
        self._processor: SpanProcessor | None = getattr(tracer, "span_processor", None)
        self.sampler: Sampler | None = getattr(tracer, "sampler", None)
        self.resource: Resource | None = getattr(tracer, "resource", None)
        self.scope = InstrumentationScope(_NAME, release)
        register = getattr(provider, "add_span_processor", None)
        if register is None:
            logger.warning(
                "%s takes no span processors: its spans will not be part of our traces",
                type(provider).__name__,
            )
        else:
            register(processor)

    def listeners(self) -> SpanProcessor | None:
        """Return the processor that gets our spans; ``None`` while the provider has ours alone."""
        return None if self._own is not None and self._own.processors <= 1 else self._processor


class OwnProvider(TracerProvider):
    """The provider where the app has none. Its first processor is ours; the app may add others."""

    processors = 0

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add a processor and count it."""
        self.processors += 1
        super().add_span_processor(span_processor)


_pipelines: WeakKeyDictionary[otel.TracerProvider, Pipeline] = WeakKeyDictionary()


def pipeline_of(provider: otel.TracerProvider, processor: SpanProcessor) -> Pipeline:
    """Return the pipeline of a provider, the same for all bridges."""
    pipeline = _pipelines.get(provider)
    if pipeline is None:
        pipeline = _pipelines[provider] = Pipeline(provider, processor)
    return pipeline


def global_provider() -> otel.TracerProvider:
    """Return the global provider: the app's own, or a minimal one where it has none."""
    provider = otel.get_tracer_provider()
    if isinstance(provider, otel.ProxyTracerProvider):
        try:
            otel.set_tracer_provider(OwnProvider())
        except Exception as error:  # noqa: BLE001 - what its environment variables ask for may not be there
            ledger.failed("opentelemetry", error)
        provider = otel.get_tracer_provider()
    return provider
