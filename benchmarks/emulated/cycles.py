"""Cycles that a run takes by LLVM's models of CPUs: llvm-mca on every block that QEMU counted.

A block is taken as a loop of its own, all data in the first-level cache, all branches foreseen.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence

from tvm_bitenc.deploy.linker import gnu_compiler
from tvm_bitenc.target import Target

from .program import Block, Program
from .tools import run

VERSION = 19  # Older ones know fewer CPUs.
SHARE = 0.995  # Of all instructions; the blocks that make up the rest are taken like these.
ITERATIONS = 20
# CPUs that LLVM has a model of, beyond that of an older CPU.
MODELS = {"cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n2"}
MODEL_OF = {"cortex-a76": "neoverse-n1"}  # The same pipelines.


def missing_model(target: Target) -> str | None:
    """Why the target's cycles can't be estimated here; None if they can."""
    cpu = str(target.tvm_target.attrs.get("mcpu", ""))
    if target.architecture != "aarch64" or cpu not in MODELS:
        return f"LLVM has no model of {cpu}"
    return None if _mca() else f"llvm-mca missing: apt-get install llvm-{VERSION}"


def _mca() -> str | None:
    return shutil.which(f"llvm-mca-{VERSION}")


def estimated_cycles(program: Program, blocks: Sequence[Block]) -> float:
    """Cycles of all blocks together."""
    blocks = sorted(blocks, key=lambda block: -block.instructions * block.times)
    executed = sum(block.instructions * block.times for block in blocks)
    chosen, covered = [], 0
    for block in blocks:
        chosen.append(block)
        covered += block.instructions * block.times
        if covered >= SHARE * executed:
            break
    each = _cycles(program.target, [_assembly(program, block) for block in chosen])
    return sum(c * block.times for c, block in zip(each, chosen, strict=True)) * executed / covered


def _assembly(program: Program, block: Block) -> str:
    """Instructions of a block, as LLVM reads them: without what branches and addresses refer to."""
    size = 4 * block.instructions  # Every instruction of 64-bit ARM has four bytes.
    objdump = gnu_compiler(program.target).replace("-gcc", "-objdump")
    ends = [f"--start-address={block.address}", f"--stop-address={block.address + size}"]
    text = run([objdump, "-d", "--no-show-raw-insn", *ends, "program"], program.folder)
    lines = re.findall(r"^\s*[0-9a-f]+:\t(.*)$", text, re.MULTILINE)
    return "\n".join(re.sub(r"\b[0-9a-f]+ <[^>]*>", ".", line.split("//")[0]) for line in lines)


def _cycles(target: Target, texts: Sequence[str]) -> list[float]:
    """Cycles of one pass through each text, repeated."""
    cpu = str(target.tvm_target.attrs["mcpu"])
    regions = [f"# LLVM-MCA-BEGIN\n{text}\n# LLVM-MCA-END\n" for text in texts]
    triple, cpu = f"-mtriple={target.triple}", f"-mcpu={MODEL_OF.get(cpu, cpu)}"
    options = ["--json", f"-iterations={ITERATIONS}", "-skip-unsupported-instructions=lack-sched"]
    command = [_mca(), triple, cpu, *options]
    done = subprocess.run(command, input="".join(regions), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    found = json.loads(done.stdout)["CodeRegions"]
    return [region["SummaryView"]["TotalCycles"] / ITERATIONS for region in found]
