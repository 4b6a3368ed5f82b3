"""How Sphinx makes a web site of this folder: `make docs` writes it to build/docs."""

from __future__ import annotations

from autoinst import __version__

project = "autoinst"
author = "the autoinst authors"
copyright = "the autoinst authors, MIT licence"  # noqa: A001 - Sphinx's name for it
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["images"]
source_suffix = {".md": "markdown"}
default_role = "code"  # what is between single backticks in a docstring
html_theme = "furo"
html_title = "autoinst"
myst_heading_anchors = 3
# Anything that leads nowhere is a mistake; the build stops at it (-W).
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!autoinst).*")]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
