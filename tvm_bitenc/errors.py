"""Errors of tvm-bitenc: each names the object, the cause and the cure."""

from __future__ import annotations

from .printable import printable


class BitencError(ValueError):
    """Base class of every error that tvm-bitenc raises on purpose.

    Parameters
    ----------
    where : str
        The op, layer or file that the error is about.
    cause : str
        What is wrong with it.
    cure : str
        What the user can do.
    """

    def __init__(self, where: str, cause: str = "", cure: str = ""):
        # TVM rebuilds an error that crosses its C++ code from the finished message alone.
        where = printable(where, "" if cause else "\n")
        cause, cure = (printable(text, "\n\t") for text in (cause, cure))
        super().__init__(f"{where}: {cause}. {cure}." if cause else where)
        self.where, self.cause, self.cure = where, cause, cure


class UnsupportedError(BitencError):
    """A layer or value that can't be compiled exactly."""


class TargetError(BitencError):
    """An unknown target, a malformed target file, or a target that this machine can't run."""


class LibraryError(BitencError):
    """A compiled library that can't be written or loaded."""


class RemoteError(BitencError):
    """An RPC server that can't be reached, stopped, or failed."""


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, without its full stop."""
    lines = str(error).strip().splitlines() or [repr(error)]
    return printable(lines[0].removesuffix("."))
