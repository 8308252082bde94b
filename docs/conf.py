"""How Sphinx builds the documentation: `make docs`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tutorials"))  # Tutorials import what lies beside them.

import tvm_bitenc  # noqa: E402

project = "tvm-bitenc"
author = "the tvm-bitenc contributors"
release = tvm_bitenc.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
html_theme = "furo"
html_title = "tvm-bitenc"
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_typehints = "none"  # Docstrings say more: shapes, dtypes, ranges.
numpydoc_show_class_members = False
sphinx_gallery_conf = {
    "examples_dirs": ["../tutorials"],
    "gallery_dirs": ["tutorials"],
    "filename_pattern": r"/\d\d_",
    "ignore_pattern": r"(^|/)[a-z]+\.py$",
    # `make tutorials` runs them; here they are shown, unless this asks to run them once more.
    "plot_gallery": os.environ.get("RUN_TUTORIALS") == "1",
    "download_all_examples": False,
    "show_memory": False,
}
# Where a name is that no page documents: plain text instead of a link.
nitpicky = False
# The furo theme and the gallery ask for no network; external links are checked by `make links`.
linkcheck_timeout = 10
