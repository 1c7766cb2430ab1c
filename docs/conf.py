"""How Sphinx builds the documentation: ``make docs``."""

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
# Their models cannot be made where TYPE_CHECKING is true, as autodoc sets it.
autodoc_mock_imports = ["fastmcp", "mcp"]
