"""Process metadata: entry point, version, git state and environment, detected once at start-up."""

from .build import BUILD_VARIABLES, BuildVariables, build_rows
from .detect import ENV_DEFAULTS, ENV_METADATA, Detected, detect
from .facts import Fact, Process

__all__ = [
    "BUILD_VARIABLES",
    "ENV_DEFAULTS",
    "ENV_METADATA",
    "BuildVariables",
    "Detected",
    "Fact",
    "Process",
    "build_rows",
    "detect",
]
