"""C text of a bundle: its templates filled in."""

from __future__ import annotations

import string
from importlib import resources


class _Template(string.Template):
    delimiter = "@"  # C has no use for it, and a Makefile's $ stays as it is.


def render(template: str, **values: object) -> str:
    """Fill in a file of templates/."""
    text = resources.files(__package__).joinpath("templates").joinpath(template).read_text("utf-8")
    return _Template(text).substitute(values)
