"""The register map: one table for the Verilog, the driver and the page."""

import re
from pathlib import Path

from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.data import data_folder
from tvm_bitenc.vta import registers
from tvm_bitenc.vta.registers import REGISTERS
from tvm_bitenc.vta.verilator import parameters

RTL = data_folder("targets") / "vta" / "rtl" / "axi"
PAGE = Path(__file__).parents[2] / "docs" / "registers.md"


def test_header_is_of_this_map():
    """Where it isn't, ``python -m tvm_bitenc.vta.registers`` writes it."""
    assert (RTL / "registers.vh").read_text() == registers.verilog_header()


def test_page_has_the_table():
    assert registers.page() in PAGE.read_text(encoding="utf-8")


def test_registers_and_fields_lie_apart():
    offsets = [register.offset for register in REGISTERS.values()]
    assert sorted(set(offsets)) == offsets and all(x % 4 == 0 and x < 4096 for x in offsets)
    for register in REGISTERS.values():
        bits = [each.low + i for each in register.fields for i in range(each.width)]
        assert len(set(bits)) == len(bits) and all(bit < 32 for bit in bits)


def test_verilog_decodes_every_register():
    """And the top module has every parameter of the accelerator, with its default."""
    source = (RTL / "registers.v").read_text()
    names = re.findall(r"^ +`REGISTER_(\w+): read_data", source, re.MULTILINE)
    assert names == [name.upper() for name in REGISTERS]
    for file in ("registers.v", "vta_axi.v"):
        found = re.findall(r"^    parameter (\w+) = (\d+)", (RTL / file).read_text(), re.MULTILINE)
        assert {name: int(value) for name, value in found} == parameters(Accelerator())


def test_another_instruction_set_has_another_number(monkeypatch):
    number = registers.instruction_set()
    monkeypatch.setattr(registers.isa, "verilog_header", lambda: "another")
    assert registers.instruction_set() != number


def test_command_writes_header_and_prints_table(monkeypatch, tmp_path, capsys):
    (tmp_path / "vta" / "rtl" / "axi").mkdir(parents=True)
    monkeypatch.setattr(registers, "data_folder", lambda name: tmp_path)
    registers.main()
    assert capsys.readouterr().out == registers.page()
    assert (tmp_path / "vta/rtl/axi/registers.vh").read_text() == registers.verilog_header()
