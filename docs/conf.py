"""How Sphinx builds the documentation: ``make docs``."""

# autodoc imports modules with TYPE_CHECKING on, where the models of these libraries cannot be made.
from wherefrom.integrations import fastapi, fastmcp, mcp  # noqa: F401

project = "Wherefrom"
html_title = "Wherefrom"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
suppress_warnings = ["ref.python"]  # a name that several public modules export is no mistake
