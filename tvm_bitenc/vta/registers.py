"""Register map: `registers.v` decodes it, the driver knows it, and docs/registers.md lists it.

``python -m tvm_bitenc.vta.registers`` writes the header for the Verilog and the table of the page.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..accelerator import Accelerator
from ..data import data_folder
from . import isa
from .verilator import parameters

IDENTIFICATION = int.from_bytes(b"BENC", "big")
VERSION = 1  # Of this map: a program that knows another one can't run.


@dataclass(frozen=True)
class Field:
    """Bits of a register.

    Parameters
    ----------
    name : str
    low, width : int
        Lowest bit, and how many.
    access : {"r", "rw", "w1", "rw1c"}
        Read; read and write; write 1 to begin; read, and write 1 to clear.
    text : str
    """

    name: str
    low: int
    width: int
    access: str
    text: str

    def of(self, value: int) -> int:
        """Its bits in a register's value."""
        return value >> self.low & (1 << self.width) - 1


@dataclass(frozen=True)
class Register:
    """32 bits at an offset in bytes; `fields` where they aren't one number.

    Parameters
    ----------
    name : str
    offset : int
    access : {"r", "rw"}
    text : str
    fields : tuple of Field
    """

    name: str
    offset: int
    access: str
    text: str
    fields: tuple[Field, ...] = ()

    def field(self, name: str) -> Field:
        """The field of a name."""
        return next(each for each in self.fields if each.name == name)


CONTROL = (
    Field("start", 0, 1, "w1", "begins the program; nothing while busy"),
    Field("reset", 1, 1, "w1", "ends a program at once; words on their way are waited for"),
    Field("interrupt_enable", 2, 1, "rw", "lets `done` raise the interrupt"),
)
STATUS = (
    Field("busy", 0, 1, "r", "a program runs, or its last words are on their way"),
    Field("done", 1, 1, "rw1c", "a program has ended; the interrupt until it is cleared"),
    Field("error", 4, 4, "r", "why it ended, while `done`: 0 as it should, else the cause"),
)
# In the order of `Cycles`.
COUNTERS = {
    "cycles": "from start to end",
    "load_cycles": "in which load worked",
    "compute_cycles": "in which compute worked",
    "store_cycles": "in which store worked",
    "array_steps": "cycles in which the array counted",
    "read_words": "words of 64 bits",
    "write_words": "words of 64 bits",
}


def sizes(accelerator: Accelerator) -> dict[str, int]:
    """What the registers of sizes read on an accelerator: the parameters of its Verilog."""
    return parameters(accelerator)


def _map() -> tuple[Register, ...]:
    isa_text = "CRC-32 of the header of its instruction set, `isa.vh`"
    fixed = [
        ("identification", "r", "`BENC` in ASCII", ()),
        ("version", "r", f"of this map: {VERSION}", ()),
        ("instruction_set", "r", isa_text, ()),
    ]
    read = [(name.lower(), "r", f"parameter {name}", ()) for name in sizes(Accelerator())]
    program = [
        ("control", "rw", "", CONTROL),
        ("status", "rw", "", STATUS),
        ("base_low", "rw", "byte address of the program, a multiple of 8: bits 31 to 0", ()),
        ("base_high", "rw", "bits 34 to 32", ()),
        ("instructions", "rw", "how many, from the base on", ()),
        ("memory_words", "rw", "words of 64 bits, from the base on, that it may touch", ()),
    ]
    counters = [(name, "r", text, ()) for name, text in COUNTERS.items()]
    blocks = ((0x00, fixed), (0x10, read), (0x80, program), (0xC0, counters))
    return tuple(
        Register(name, first + 4 * i, access, text, fields)
        for first, block in blocks
        for i, (name, access, text, fields) in enumerate(block)
    )


REGISTERS = {register.name: register for register in _map()}


def instruction_set() -> int:
    """Number of the instruction set, which a program and its accelerator share."""
    return zlib.crc32(isa.verilog_header().encode())


def verilog_header() -> str:
    """Offsets and bits, as macros, and what the fixed registers read."""
    lines = ["// Written by tvm_bitenc.vta.registers; don't edit.", "`ifndef REGISTERS_VH"]
    lines.append("`define REGISTERS_VH")
    for name, value in dict(
        IDENTIFICATION=IDENTIFICATION, VERSION=VERSION, INSTRUCTION_SET=instruction_set()
    ).items():
        lines.append(f"`define VALUE_{name} 32'h{value:08x}")
    for register in REGISTERS.values():
        lines.append(f"`define REGISTER_{register.name.upper()} 12'h{register.offset:03x}")
        for each in register.fields:
            high, low = each.low + each.width - 1, each.low
            bits = f"{high}:{low}" if each.width > 1 else f"{low}"
            lines.append(f"`define {register.name.upper()}_{each.name.upper()} {bits}")
    return "\n".join([*lines, "`endif"]) + "\n"


def page() -> str:
    """The table of docs/registers.md."""
    lines = ["| offset | register | access | holds |", "|---|---|---|---|"]
    for register in REGISTERS.values():
        row = f"`0x{register.offset:02x}`", f"`{register.name}`", register.access, register.text
        lines.append(f"| {' | '.join(row)} |")
        for each in register.fields:
            high = each.low + each.width - 1
            bits = f"{high}:{each.low}" if each.width > 1 else f"{each.low}"
            row = "", f"`{each.name}`, bit {bits}", each.access, each.text
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the header, under a temporary name first; print the table."""
    path = data_folder("targets") / "vta" / "rtl" / "axi" / "registers.vh"
    new = Path(f"{path}.new")
    new.write_text(verilog_header())
    os.replace(new, path)
    print(page(), end="")


if __name__ == "__main__":
    main()
