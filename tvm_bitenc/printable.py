"""Names and messages from models and files, as they may be shown.

A layer's name may hold anything: escape codes that move a terminal's cursor, marks that turn the
direction of writing, line ends that forge a line. Whatever shows or keeps names asks this file.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def printable(text: str, keep: str = "") -> str:
    """Write characters that aren't printed as themselves as escapes, such as ``\\x1b``.

    Parameters
    ----------
    text : str
    keep : str
        Characters that stay, such as the line end.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def escape_fields(value: Any) -> None:
    """Make every text of a dataclass printable, for its ``__post_init__``."""
    for each in fields(value):
        found = getattr(value, each.name)
        if isinstance(found, str):
            object.__setattr__(value, each.name, printable(found))
        elif isinstance(found, list) and all(isinstance(text, str) for text in found):
            object.__setattr__(value, each.name, [printable(text) for text in found])
