"""Sphinx: Markdown by myst, notebooks that run while building; tables of fields come from the configuration classes."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout that these pages belong to
from lightning_wm import __version__

project = "lightning_wm"
author = "The lightning_wm authors"
copyright = "2026, The lightning_wm authors"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # MathJax from these pages' own files
]
exclude_patterns = ["_build"]
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme = "furo"
html_title = f"lightning_wm {release}"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_execution_mode = "auto"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

MARKER = "<!-- configuration reference -->"
FIELDS = re.compile(r"<!-- fields of planner (\w+) -->")


@cache
def reference() -> str:
    """Every key, from the docstrings of the configuration classes."""
    from lightning_wm.config import reference_markdown

    return reference_markdown()


def fields(planner: str) -> str:
    """The reference's table of one planner.

    Raises:
        ValueError: no planner has the name.
    """
    section = reference().partition(f"\n## planner `{planner}`\n")[2].partition("\n## ")[0]
    return section[section.index("| key") :]


def insert_reference(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put what is generated in place of the markers."""
    if MARKER in source[0]:
        source[0] = source[0].replace(MARKER, reference())
    source[0] = FIELDS.sub(lambda found: fields(found[1]), source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the reference."""
    app.connect("source-read", insert_reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
