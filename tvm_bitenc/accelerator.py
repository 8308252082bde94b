"""Parameters of an accelerator, from a file in targets/vta/."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from .data import data_folder
from .encoding import WORD_BITS
from .errors import TargetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUFFERS = ("act", "weight", "param", "tap", "pass", "residual", "out")
_SECTIONS = {
    "array": ("DM", "DK", "DN"),
    "buffers": BUFFERS,
    "memory": ("bus_bytes", "latency"),
    "queues": ("instructions", "tokens"),
}


@dataclass(frozen=True)
class Accelerator:
    """Sizes of an accelerator.

    Parameters
    ----------
    channels : int
        DM: output channels computed at a time; divides 64.
    pixels : int
        DN: output pixels computed at a time; a power of two.
    act_rows, weight_rows, param_rows, tap_rows, pass_rows, residual_rows, out_rows : int
        Rows of each buffer.
    latency : int
        Cycles from a read's address to its data.
    instruction_queue, token_queue : int
        Entries of each queue.
    """

    channels: int = 8
    pixels: int = 8
    act_rows: int = 1024
    weight_rows: int = 2048
    param_rows: int = 1024
    tap_rows: int = 256
    pass_rows: int = 64
    residual_rows: int = 4096
    out_rows: int = 4096
    latency: int = 16
    instruction_queue: int = 8
    token_queue: int = 8

    def __post_init__(self):
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TargetError("accelerator", f"{name} = {value!r}", "Give a positive integer")
        if WORD_BITS % self.channels or self.channels % 2:
            raise TargetError("accelerator", f"DM = {self.channels}", "Use 2, 4, 8, 16, 32 or 64")
        if self.pixels & (self.pixels - 1):
            raise TargetError("accelerator", f"DN = {self.pixels}", "Use a power of two")

    def rows(self, buffer: str) -> int:
        """Rows of a buffer of `BUFFERS`."""
        return getattr(self, f"{buffer}_rows")

    @property
    def macs_per_cycle(self) -> int:
        """Binary multiply-accumulates per cycle."""
        return self.channels * self.pixels * WORD_BITS


def load_accelerator(target: str | Path = "default") -> Accelerator:
    """Read a name from targets/vta/, or a path to such a file.

    Raises
    ------
    TargetError
        If there is no such file, or it is malformed.
    """
    path = data_folder("targets") / "vta" / f"{target}.toml"
    path = path if path.is_file() else Path(target)
    where = f"accelerator {str(target)!r}"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise TargetError(where, "there is no such file", "Give a name from targets/vta/") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(where, f"isn't TOML ({error})", "Mend that line") from None
    _check_keys(content, where)
    if content["array"]["DK"] != WORD_BITS or content["memory"]["bus_bytes"] != WORD_BITS // 8:
        raise TargetError(where, "DK isn't 64, or bus_bytes isn't 8", "Use 64 and 8")
    return Accelerator(
        content["array"]["DM"],
        content["array"]["DN"],
        **{f"{name}_rows": content["buffers"][name] for name in BUFFERS},
        latency=content["memory"]["latency"],
        instruction_queue=content["queues"]["instructions"],
        token_queue=content["queues"]["tokens"],
    )


def _check_keys(content: dict, where: str) -> None:
    for section, keys in _SECTIONS.items():
        found = content.get(section)
        if not isinstance(found, dict) or set(found) != set(keys):
            raise TargetError(
                where, f"[{section}] must have exactly {', '.join(keys)}", "Copy default.toml"
            )
    if set(content) != set(_SECTIONS):
        raise TargetError(where, "has unknown tables", f"Keep {', '.join(_SECTIONS)}")
