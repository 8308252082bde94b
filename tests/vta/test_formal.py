"""Bounded proofs of the Verilog: Yosys makes the formulas, z3 solves them."""

import shutil
import subprocess

import pytest

from tvm_bitenc.data import data_folder

VTA = data_folder("targets") / "vta"
# Top module, its parameters, and so many cycles from all inputs.
PROOFS = [
    *(("fifo", dict(DEPTH=depth), 8) for depth in (1, 2, 3)),
    *(("tokens", dict(CAPACITY=capacity), 9) for capacity in (1, 2, 3)),
    *(("outstanding", dict(LIMIT=limit), 14) for limit in (1, 3)),
    *(("read_port", dict(READS=reads), 9) for reads in (1, 2)),
    *(("write_port", dict(WRITES=writes), 9) for writes in (1, 3)),
    pytest.param("load_addresses", dict(MOST=2), 9, marks=pytest.mark.slow),
]


def prove(name: str, parameters: dict[str, int], cycles: int, folder) -> str:
    """What yosys-smtbmc says of ``<name>_proof``."""
    chosen = " ".join(f"-chparam {key} {value}" for key, value in parameters.items())
    formula = folder / f"{name}.smt2"
    script = (
        f"read_verilog -sv -formal {VTA / 'formal' / name}_proof.v;"
        f" hierarchy -check -libdir {VTA / 'rtl'} -top {name}_proof {chosen};"
        " proc; flatten; memory_map; opt -full; dffunmap; check -assert;"
        f" write_smt2 -wires {formula}"
    )
    made = subprocess.run(["yosys", "-q", "-p", script], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    solve = ["yosys-smtbmc", "-s", "z3", "-t", str(cycles), formula]
    return subprocess.run(solve, capture_output=True, text=True).stdout


@pytest.mark.skipif(not shutil.which("yosys-smtbmc"), reason="install yosys")
@pytest.mark.skipif(not shutil.which("z3"), reason="install z3")
@pytest.mark.parametrize("name, parameters, cycles", PROOFS, ids=str)
def test_proofs_hold(name, parameters, cycles, tmp_path):
    said = prove(name, parameters, cycles, tmp_path)
    assert said.strip().endswith("Status: PASSED"), said
