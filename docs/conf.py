"""Sphinx: Markdown by myst, the configuration reference written from the schema while building."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

from sphinx.application import Sphinx

project = "lightning_wm"
author = "The lightning_wm authors"
copyright = "2026, The lightning_wm authors"
release = version = installed("lightning_wm")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"lightning_wm {release}"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "dollarmath"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

MARKER = "<!-- configuration reference -->"


def insert_reference(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the reference, generated from the schema's docstrings, in place of the marker."""
    if MARKER in source[0]:
        from lightning_wm.config import reference_markdown

        source[0] = source[0].replace(MARKER, reference_markdown())


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the reference."""
    app.connect("source-read", insert_reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
