"""OpenFeature: the value of each evaluated flag, recorded on the trace.

    openfeature.api.add_hooks([FeatureFlagHook()])

Or for one client: ``client.add_hooks([FeatureFlagHook()])``.
"""

from __future__ import annotations

from ..exceptions import MissingExtraError
from ..tracing.api import record_feature_flag

try:
    from openfeature.flag_evaluation import FlagEvaluationDetails, FlagValueType
    from openfeature.hook import Hook, HookContext, HookHints
except ImportError as error:
    raise MissingExtraError("wherefrom.integrations.openfeature", "openfeature") from error

__all__ = ["FeatureFlagHook"]


class FeatureFlagHook(Hook):
    """Records each evaluation on the current trace, if there is one, as metadata ``feature_flag_<key>``.

    The ``finally`` stage (OpenFeature specification, 4.3.8) is the only one that has the value in every case:
    the flag's, or the default when the evaluation failed.
    """

    def finally_after(
        self,
        hook_context: HookContext,
        details: FlagEvaluationDetails[FlagValueType],
        hints: HookHints,  # noqa: ARG002 - OpenFeature's signature
    ) -> None:
        """Record the value that the app got."""
        record_feature_flag(hook_context.flag_key, details.value)
