"""Tests lie where the code lies; what has no test of its own name is listed with what covers it."""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "tvm_bitenc"

# Files of the package whose name no test file bears: which test covers them.
COVERED = {
    "te/intrinsic": "te/test_elementary",
    "transform/bit_planes/terms": "transform/test_bit_planes",
    "transform/analysis/code_steps": "kernel/epilogue/test_computed",
    "accelerator": "vta/test_rtl",
    "cli/bench": "cli/test_compile",
    "cli/models": "cli/test_hostile_files",
    "cli/report": "cli/test_compile",
    "cli/run": "cli/test_compile",
    "cli/serve": "cli/test_deploy",
    "accelerated": "vta/test_build",
    "compiler": "test_compiled",
    "data": "test_target",
    "deploy/connection": "deploy/test_remote",
    "deploy/description": "deploy/test_library",
    "deploy/inputs": "deploy/test_remote",
    "deploy/network": "deploy/test_library",
    "deploy/listen": "deploy/test_serve",
    "deploy/machine": "deploy/test_doctor",
    "deploy/names": "deploy/test_remote",
    "deploy/registration": "tuning/test_farm",
    "deploy/seal": "deploy/test_linker",
    "deploy/sealed": "deploy/test_library",
    "deploy/session": "deploy/test_serve",
    "deploy/tracker": "tuning/test_farm",
    "entry/for_tvm": "deploy/test_library",
    "entry/jit": "runtime/test_network",
    "entry/symbolic": "entry/test_plan",
    "errors": "frontend/test_onnx_errors",
    "explain/observer": "explain/test_explain",
    "explain/reasons": "explain/test_explain",
    "features": "test_target",
    "frontend/onnx/*": "frontend/test_onnx_*",
    "frontend/torch/*": "frontend/test_torch_*",
    "host": "test_target",
    "loaded": "deploy/test_library",
    "runtime/specs": "test_batch",
    "tvm_options": "test_target",
    "kernel/matmul/*": "kernel/test_matmul",
    "kernel/epilogue/*": "kernel/test_exactness",
    "kernel/isa_meaning": "kernel/test_isa",
    "kernel/kernel": "kernel/test_exactness",
    "kernel/neon": "kernel/test_isa",
    "kernel/neon_functions": "kernel/test_arm",
    "kernel/nest/*": "kernel/test_exactness",
    "kernel/product/*": "kernel/test_exactness",
    "kernel/scalar": "kernel/test_isa",
    "kernel/tir": "kernel/test_exactness",
    "kernel/transpose": "kernel/test_exactness",
    "nn/matmul": "nn/test_layers",
    "nn/models/*": "nn/test_models",
    "nn/scaled": "nn/test_layers",
    "nn/transposed": "nn/test_layers",
    "op/decode": "op/test_lookup",
    "op/reached": "frontend/test_onnx_finn",
    "op/registration": "op/test_script",
    "op/threshold": "op/test_branch",
    "program": "test_compiled",
    "report/data": "report/test_report",
    "report/figure": "report/test_roofline",
    "report/html": "report/test_report",
    "report/timing": "report/test_page",
    "rounding": "test_encoding",
    "schedule/avx2": "schedule/test_x86",
    "schedule/avx512": "schedule/test_x86",
    "schedule/dotprod": "schedule/test_arm",
    "schedule/i8mm": "schedule/test_arm",
    "schedule/neon": "schedule/test_arm",
    "schedule/rule": "records/test_decision",
    "schedule/rule_sets": "schedule/test_generic",
    "schedule/vector": "kernel/test_exactness",
    "schedule/x86_tiles": "schedule/test_x86",
    "simulate/*": "cli/test_sim",
    "strategy": "transform/test_strategy",
    "te/channels": "op/test_packed_channels",
    "te/conv2d": "op/test_packed",
    "te/function": "te/test_te",
    "te/int_conv2d": "schedule/test_generic",
    "te/int_matmul": "op/test_matmul",
    "te/interleave": "op/test_interleave",
    "te/layer_kernels": "op/test_packed",
    "te/limited": "test_nan",
    "te/lookup": "kernel/test_lookup",
    "te/lut_conv2d": "schedule/test_generic",
    "te/pack": "op/test_packed",
    "te/pool": "op/test_packed",
    "te/rounded": "transform/test_strict_float",
    "transform/analysis/constant_shaping": "transform/test_shaping",
    "transform/analysis/float32": "transform/test_fold",
    "transform/analysis/forks": "transform/analysis/test_grid",
    "transform/analysis/shaping": "transform/test_shaping",
    "transform/layout/planes": "transform/test_layout",
    "transform/layout/shaping": "transform/test_shaping",
    "transform/loops": "transform/test_vectorize",
    "transform/lower/*": "transform/test_lower",
    "transform/options": "transform/test_fuse_ops",
    "tuning/api": "tuning/test_session",
    "tuning/artifact": "tuning/test_runner",
    "tuning/builder": "tuning/test_runner",
    "tuning/compare": "tuning/test_runner",
    "tuning/devices": "cli/test_tune",
    "tuning/measure": "tuning/test_runner",
    "tuning/model": "tuning/test_search",
    "tuning/progress": "tuning/test_session",
    "tuning/result": "tuning/test_session",
    "tuning/synthetic": "tuning/test_task",
    "tuning/verify": "cli/test_tune",
    "tvm_target": "test_target",
    "vta/check_layer": "vta/test_compile_layer",
    "vta/codegen": "vta/test_build",
    "vta/constants": "vta/test_compile_layer",
    "vta/conv_stream": "vta/test_compile_layer",
    "vta/cost": "vta/test_verilator",
    "vta/depthwise": "vta/test_groups",
    "vta/driver/board": "vta/driver/test_device",
    "vta/link": "vta/test_network",
    "vta/offloaded": "vta/test_build",
    "vta/placed": "vta/test_network",
    "vta/program": "vta/test_compile_layer",
    "vta/region": "vta/test_network",
    "vta/runtime": "vta/test_build",
    "vta/sequencer": "vta/test_network",
    "vta/stream": "vta/test_compile_layer",
    "vta/tiling": "vta/test_compile_layer",
    "vta/work": "vta/test_verilator",
}

# Tests of what several files do together, or of what isn't the package.
TOGETHER = {
    "benchmarks/*": "the measuring tools",
    "cli/test_deploy_docs": "commands of docs/deploy.md",
    "deploy/test_boards": "networks on emulated boards: microcontrollers, RISC-V",
    "deploy/test_emulated": "networks on an emulated AArch64 machine",
    "frontend/test_codebooks": "kernels that are few, from both front ends",
    "frontend/test_shared_channels": "filters that channels share, from both front ends",
    "kernel/test_assembly": "instructions that kernels are made of",
    "suites/*": "peers' own test suites, and random networks",
    "test_compile_time": "how the time to compile grows",
    "test_docs": "the documentation",
    "test_exactness": "every compiled layer",
    "test_extension_points": "extensions from outside of the package",
    "test_imports": "which file imports which",
    "test_mirror": "this",
    "test_nan": "NaN, from input to code",
    "test_networks": "whole networks",
    "test_package": "the wheel",
    "test_readme": "the README",
    "transform/test_branches": "the equation that all rests on",
    "transform/test_float_layers": "a residual block",
    "tutorials/*": "the tutorials",
    "vta/test_bus": "the Verilog's ports, with a memory that stalls or fails",
    "vta/test_axi": "the accelerator's Verilog on a bus",
    "vta/test_axi_formal": "proofs of the Verilog",
    "vta/test_copies": "layers whose channels share weights, compiled and on both simulators",
    "vta/test_digits": "a network on the accelerator",
    "vta/test_float_units": "float arithmetic in Verilog",
    "vta/test_formal": "proofs of the Verilog",
    "vta/test_groups": "grouped and depthwise layers, compiled and on both simulators",
    "vta/test_networks": "networks on the accelerator",
    "vta/test_pool_and_residual": "programs written by hand, on both simulators",
    "vta/test_rtl": "the Verilog",
    "vta/test_side_by_side": "layers whose planes share words, on both simulators",
    "vta/test_sizes": "machines of other DM, DN and DK, on both simulators",
    "vta/test_tables": "tables in programs of convolutions",
}


def names_below(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob(pattern)}


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def parts() -> set[str]:
    """Files of the package; a folder's own file by the folder's name."""
    return {name.removesuffix("/__init__") for name in names_below(PACKAGE, "*.py")}


def mirrored(test: str) -> str:
    folder, _, name = test.rpartition("/")
    return f"{folder}/{name.removeprefix('test_')}".lstrip("/")


def test_every_file_has_a_test_of_its_name_or_one_that_covers_it():
    folders = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_dir()}
    own = {mirrored(test) for test in names_below(TESTS, "test_*.py")}
    alone = parts() - folders - own - {"__init__", "__main__"}
    assert [name for name in sorted(alone) if not matches(name, COVERED)] == []
    # Nothing is listed that has a test of its own by now, or is gone.
    assert [entry for entry in COVERED if not any(fnmatch(name, entry) for name in alone)] == []


def test_every_test_bears_the_name_of_what_it_tests_or_is_listed():
    tests, known = names_below(TESTS, "test_*.py"), parts()
    listed = [*COVERED.values(), *TOGETHER]
    others = {test for test in tests if mirrored(test) not in known}
    assert [test for test in sorted(others) if not matches(test, listed)] == []
    assert [entry for entry in listed if not any(fnmatch(test, entry) for test in tests)] == []
    assert [entry for entry in TOGETHER if not any(fnmatch(test, entry) for test in others)] == []
