"""Documents from outside, JSON and TOML, decoded into the types that declare them.

What a document may hold is said by a `msgspec.Struct` or a dataclass, with bounds as
``Annotated[int, Meta(ge=1)]``. Size, depth and count are limited before anything is parsed: a
hostile document costs no more than reading it, and every fault of it is one `BitencError` that
names the file, the place inside of it and the cure.
"""

from __future__ import annotations

import json
import math
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from .errors import BitencError, first_line
from .printable import printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
Size = Annotated[int, Meta(ge=1, le=INT32_MAX)]
Count = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Share = Annotated[float, Meta(ge=0)]
Name = Annotated[str, Meta(max_length=4096)]
Text = Annotated[str, Meta(max_length=1 << 16)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]

_LONGEST = 300  # Characters of a message that come from a document.
_BOM = b"\xef\xbb\xbf"
_JSON_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_TOML_STRING = re.compile(
    rb'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*(?:"{3,5}|\\?\Z)'
    rb"|'''[^']*(?:'(?!'')[^']*)*(?:'{3,5}|\Z)"
    rb'|"[^"\\\n]*(?:\\.[^"\\\n]*)*(?:"|\\?$|\\?\Z)'
    rb"|'[^'\n]*(?:'|$|\Z)"
    rb"|\#[^\n]*",
    re.DOTALL | re.MULTILINE,
)
_KEY_PARTS = 8  # Of a dotted key in TOML, each of which nests one deeper.
_DOTTED = re.compile(rb"(?<![\w-])(?:[\w-]+[ \t]*\.[ \t]*){%d}" % _KEY_PARTS)
_BRACKETS = b"[]{},"
_OTHERS = bytes(set(range(256)) - set(_BRACKETS))
_PLACE = re.compile(r" - at `(?:key in )?\$(?P<path>.*)`$", re.DOTALL)


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the types of documents that people write: an unknown key is a fault."""


@dataclass(frozen=True)
class Limits:
    """How large a document may be.

    Parameters
    ----------
    size : int
        Bytes.
    items : int
        Elements of all its lists and objects together.
    depth : int
        Lists and objects inside of each other.
    """

    size: int = 1 << 24
    items: int = 1 << 20
    depth: int = 64


WRITTEN_BY_HAND = Limits(size=1 << 16, items=1 << 12, depth=16)


@dataclass(frozen=True)
class Source:
    """Where a document is from, and how its faults are raised.

    Parameters
    ----------
    where : str
        The file, as an error names it.
    cure : str
        What to do about a fault.
    error : type of BitencError
    limits : Limits
    """

    where: str
    cure: str
    error: type[BitencError] = BitencError
    limits: Limits = Limits()

    def fault(self, cause: str, place: str = "") -> BitencError:
        """Error for a fault, at a place inside of the document."""
        where = f"{self.where}, at {_shown(place)}" if place else self.where
        return self.error(where, _shown(cause), self.cure)

    def read(self, path: Path) -> bytes:
        """Bytes of a file, which must be a regular one and no larger than the limit.

        Raises
        ------
        BitencError
            Of the source's class.
        """
        try:
            with open(path, "rb") as file:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise self.fault("can't be read (it is no regular file)")
                content = file.read(self.limits.size + 1)
        except (OSError, ValueError) as error:  # A name with a null byte is a ValueError.
            if isinstance(error, BitencError):
                raise
            reason = getattr(error, "strerror", None) or first_line(error)
            raise self.fault(f"can't be read ({reason})") from None
        if len(content) > self.limits.size:
            raise self.fault(f"is larger than {self.limits.size:,} bytes")
        return content

    def json(self, content: bytes, kind: type[T]) -> T:
        """Decode JSON.

        Raises
        ------
        BitencError
            Of the source's class: if it is too large or too deep, isn't JSON in UTF-8, has a key
            twice or a number that isn't finite, or doesn't fit `kind`.
        """
        self._check_size(content)
        _check_nesting(self, content, _JSON_STRING)
        return self.convert(self._parsed(content, "JSON", _parse_json), kind)

    def toml(self, content: bytes, kind: type[T]) -> T:
        """Decode TOML.

        Raises
        ------
        BitencError
            As `json`.
        """
        self._check_size(content)
        stripped = _check_nesting(self, content, _TOML_STRING)
        if _DOTTED.search(stripped):
            raise self.fault(f"has a dotted key of more than {_KEY_PARTS} parts")
        return self.convert(self._parsed(content, "TOML", _parse_toml), kind)

    def convert(self, value: Any, kind: type[T]) -> T:
        """Check plain values and return them as `kind`.

        Raises
        ------
        BitencError
            Of the source's class.
        """
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            cause, place = _cause_and_place(str(error))
            raise self.fault(cause.removesuffix("."), place) from None
        except RecursionError:
            raise self.fault("is nested too deep") from None

    def _check_size(self, content: bytes) -> None:
        if len(content) > self.limits.size:
            raise self.fault(f"is larger than {self.limits.size:,} bytes")
        if content.startswith(_BOM):
            raise self.fault("begins with a byte order mark")

    def _parsed(self, content: bytes, language: str, parse: Callable[[bytes], Any]) -> Any:
        try:
            return parse(content)
        except RecursionError:
            raise self.fault("is nested too deep") from None
        except ValueError as error:  # Of both languages, and of UTF-8.
            raise self.fault(f"isn't {language} ({first_line(error)})") from None


def _check_nesting(source: Source, content: bytes, strings: re.Pattern[bytes]) -> bytes:
    """Raise where lists and objects are too many or too deep; return the text between strings.

    Where already all brackets together are few, strings included, nothing is looked at closely.
    """
    limits = source.limits
    openers = content.count(b"[") + content.count(b"{")
    if openers <= limits.depth and openers + content.count(b",") <= limits.items:
        return content if strings is _JSON_STRING else strings.sub(b"q", content)
    stripped = strings.sub(b"q", content)
    marks = np.frombuffer(stripped.translate(None, _OTHERS), np.uint8)
    opens, closes = (np.isin(marks, list(both)) for both in (b"[{", b"]}"))
    depth = np.cumsum(opens.astype(np.int64) - closes).max(initial=0)
    if depth > limits.depth:
        raise source.fault(f"is nested {depth} deep, and at most {limits.depth} are read")
    if marks.size - closes.sum() > limits.items:
        raise source.fault(f"has more than {limits.items:,} elements")
    return stripped


def _parse_json(content: bytes) -> Any:
    text = content.decode("utf-8")
    value = _JSON.decode(text)
    if "\\u" in text:  # Half of a surrogate pair is no text: printing it would fail.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _parse_toml(content: bytes) -> Any:
    return tomllib.loads(content.decode("utf-8"), parse_float=_finite)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} is there twice")
        found[name] = value
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} isn't a finite number")
    return number


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)


def _cause_and_place(message: str) -> tuple[str, str]:
    """Split msgspec's message, and put its part in front of the name of what is wrong."""
    place = _PLACE.search(message)
    cause = message[: place.start()] if place else message
    return cause[:1].lower() + cause[1:], (place["path"] if place else "").lstrip(".")


def _shown(text: str) -> str:
    """Cut a text short, and show what would move a terminal's cursor: it may be an attacker's."""
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")
