"""The function of a network: steps from the first to before the last."""

import numpy as np
from tvm import relax, tirx

import tvm_bitenc as be
from tvm_bitenc.entry.code import compile_network
from tvm_bitenc.entry.function import entry_module
from tvm_bitenc.entry.plan import make_plan
from tvm_bitenc.runtime.size import Size
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.pipeline import kernel_calls


def kernels_of(mod):
    target = load_target("native", 1)
    with target.tvm_target:
        return kernel_calls(target)(mod), target


def sums(b, x):
    return b.emit(relax.op.cumsum(b.emit(relax.op.cumsum(x, axis=1)), axis=1))


def test_parameters_and_attributes(module_of):
    kernels, _ = kernels_of(module_of([(2, 8)], sums))
    module = entry_module(kernels, make_plan(kernels), "net")
    steps = module["net_steps"]
    assert [param.name for param in steps.params] == [
        *("input0", "output0", "weights", "arena"), "batch", "first", "last",
    ]  # fmt: skip
    named = {v.name_hint for v, f in module.functions_items() if "global_symbol" in f.attrs}
    assert named == {"net_steps"}  # Kernels are nobody else's.
    assert all(f.attrs["tirx.noalias"] for _, f in module.functions_items())
    assert not any(isinstance(f, relax.Function) for f in module.functions.values())


def test_a_kernel_that_is_not_called_is_left_out(module_of):
    kernels, _ = kernels_of(module_of([(2, 8)], sums))
    (name,) = [v.name_hint for v, f in kernels.functions_items() if isinstance(f, tirx.PrimFunc)]
    kernels["unused"] = kernels[name]
    module = entry_module(kernels, make_plan(kernels), "net")
    assert {v.name_hint for v in module.functions} == {name, "net_steps"}


def test_only_the_steps_that_are_asked_for_run(module_of):
    kernels, target = kernels_of(module_of([(2, 8)], sums))
    network = compile_network(kernels, target)
    call = network.module["bitenc_call"]
    x, y = np.ones((2, 8), np.float32), np.zeros((2, 8), np.float32)
    arena = np.zeros(network.arena.fixed + 64, np.uint8)
    start = arena.ctypes.data + -arena.ctypes.data % 64

    def run(first: int, last: int) -> np.ndarray:
        call(x.ctypes.data, y.ctypes.data, 0, start, 0, first, last)
        return y[0].copy()

    assert not run(0, 1).any()  # The first step writes to the arena.
    assert run(1, 2).tolist() == [1, 3, 6, 10, 15, 21, 28, 36]
    y[:] = 0
    assert not run(2, 9).any() and run(0, 9)[-1] == 36


def test_twice_the_batch_is_a_size_as_well():
    """Relax passes such kernels the batch beside their tensors, of which none has it."""
    n = tirx.Var("n", "int64")
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType([n, 6], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            halves = builder.emit(relax.op.reshape(x, [n * 2, 3]))
            y = builder.emit_output(relax.op.cumsum(halves, axis=1))
        builder.emit_func_output(y)
    lib = be.build(builder.get())
    assert lib.report().notes == []
    (step,) = lib.program.network.plan.steps
    assert step.numbers == (Size(0, 1),) and step.tensors[0].shape == (Size(0, 2), Size(3))
    x = np.arange(18, dtype=np.float32).reshape(3, 6)
    assert np.array_equal(lib(x), np.cumsum(x.reshape(6, 3), axis=1))
