"""What a target's file, or a library's description, may say to TVM and LLVM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from .decode import Document

if TYPE_CHECKING:
    import tvm

# LLVM crashes where it doesn't know the first part of a triple.
Triple = Annotated[
    str,
    Meta(
        max_length=100,
        pattern=r"^(x86_64|i[3-6]86|aarch64|arm64|arm|armv[5-8][a-z]{0,2}|thumbv7e?m|riscv(32|64))"
        r"(-[\w.]+){0,4}\Z",
    ),
]
Cpu = Annotated[str, Meta(max_length=100, pattern=r"^[\w.+-]*\Z")]
Feature = Annotated[str, Meta(max_length=100, pattern=r"^[+-][\w.-]+\Z")]
Word = Annotated[str, Meta(max_length=100, pattern=r"^[\w.-]*\Z")]


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class TvmOptions(Document, rename=_kebab, omit_defaults=True, frozen=True):
    """Options of TVM's target ``llvm``, but for those that pass LLVM's own command line on."""

    kind: Literal["llvm"] = "llvm"
    keys: tuple[Word, ...] = ()
    tag: Literal[""] = ""
    device: Word = ""
    model: Word = ""
    mtriple: Triple | None = None
    mcpu: Cpu = ""
    mattr: Annotated[tuple[Feature, ...], Meta(max_length=1000)] = ()
    mabi: Word = ""
    mfloat_abi: Literal["hard", "soft"] | None = None
    num_cores: Annotated[int, Meta(ge=0, le=4096)] = 0
    opt_level: Annotated[int, Meta(ge=0, le=3)] | None = None
    vector_width: Literal[64, 128, 256, 512, 1024, 2048] | None = None
    fast_math: bool = False


class SealedTvmOptions(TvmOptions, forbid_unknown_fields=False, frozen=True):
    """The same as TVM exports them; what only concerns compiling is left out."""

    @classmethod
    def of(cls, target: tvm.target.Target) -> dict[str, Any]:
        """Plain values of a target, as a description holds them."""
        return {key: _plain(value) for key, value in dict(target.export()).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (str, bool, int, float)):
        return value
    return list(map(str, value)) if hasattr(value, "__iter__") else str(value)
