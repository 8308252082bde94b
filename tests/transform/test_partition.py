"""What is cut out for the accelerator, what stays and why; and that answers don't change."""

import shutil

import numpy as np
import pytest
import tvm_ffi
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import quantize
from tvm_bitenc.op.packed import packed_conv2d_op
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.target import load_target
from tvm_bitenc.transform import partition
from tvm_bitenc.transform.partition import REASON, Partition
from tvm_bitenc.transform.pipeline import default_pipeline
from tvm_bitenc.transform.rewrite import is_external
from tvm_bitenc.transform.visit import visit_calls
from tvm_bitenc.vta.binary import dumps
from tvm_bitenc.vta.network import compile_network
from tvm_bitenc.vta.offloaded import PROGRAM
from tvm_bitenc.vta.region import region_of

rng = np.random.default_rng(0)
TARGET = load_target("vta")
CHANNELS = 70
simulators = pytest.mark.parametrize(
    "simulator",
    [
        "functional",
        pytest.param(
            "verilog",
            marks=pytest.mark.skipif(
                not shutil.which("verilator"), reason="install verilator and g++"
            ),
        ),
    ],
)


def partitioned(mod, strategy="auto"):
    before = default_pipeline(TARGET).until("bitenc.Partition").run(mod)
    return before, Partition(TARGET, strategy)(before)


def composites(mod):
    """Names of the patterns that matched, in no order."""
    found = []

    def note(expr):
        if isinstance(expr, relax.Function) and expr.attrs and "Composite" in expr.attrs:
            found.append(str(expr.attrs["Composite"]))

    for function in mod.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, note)
    return sorted(name.removeprefix("bitenc_vta.") for name in found)


@pytest.fixture(scope="module")
def residual_network(module_of, random_layer):
    """``residual_network(shortcut, also)``: q(conv(x)) + shortcut, pooled and convolved again."""

    def make(shortcut="input", also=False):
        act = Encoding.unsigned(2, 2.0)
        options = dict(channels=CHANNELS, out_channels=CHANNELS, size=(7, 6), padding=1)
        first, side, second = (
            random_layer(seed, Encoding.symmetric(2, 2.0), act, name=name, **options)
            for seed, name in enumerate(("first", "side", "second"))
        )
        last = random_layer(3, Encoding.symmetric(1, 2.0), act, name="last", channels=CHANNELS)
        sums = Encoding.unsigned(2, 16.0)

        def body(builder, x):
            x = builder.emit(quantize(x, act))
            y = builder.emit(quantize(first.emit(builder, x), sums))
            other = side.emit(builder, x) if shortcut == "convolution" else x
            other = builder.emit(quantize(other, Encoding.unsigned(3, 8.0)))
            total = builder.emit(relax.op.add(y, other))
            middle = builder.emit(relax.op.nn.relu(second.emit(builder, total)))
            pooled = builder.emit(relax.op.nn.max_pool2d(middle, (2, 2), (2, 2)))
            out = last.emit(builder, pooled)
            return [out, y] if also else out

        return module_of([first.act_codes.shape], body), first.input

    return make


@pytest.mark.sweep(2)
@pytest.mark.parametrize("shortcut", ["input", "convolution"])
@simulators
def test_residual_networks(shortcut, simulator, residual_network, same):
    mod, x = residual_network(shortcut)
    _, after = partitioned(mod)
    expected = ["conv2d", "conv2d", "max_pool2d", "residual"]
    assert composites(after) == (expected if shortcut == "input" else ["conv2d", *expected])
    lib = be.build(mod, target="vta", simulator=simulator)
    result = lib(x)
    assert same(result, be.build(mod)(x)) and len(np.unique(result)) > 5
    shapes = [row.shape for row in lib.report().layers]
    assert sum(shape.endswith(" + residual") for shape in shapes) == 1
    assert any(shape.startswith("max 2x2 @3x3/2") for shape in shapes)


def test_codes_that_others_read_too_are_no_part_of_a_residual(residual_network):
    mod, x = residual_network(also=True)
    _, after = partitioned(mod)
    assert composites(after) == ["conv2d", "conv2d", "conv2d", "max_pool2d"]
    for a, b in zip(be.build(mod, target="vta")(x), be.build(mod)(x)):
        assert np.array_equal(a, b)


def test_golden(assert_same_ir):
    weight = relax.const(rng.integers(0, 4, (3, 3, 3, 3)), "uint8")
    w = dict(act_coefficients=[1, 2], weight_coefficients=[1, 2], act_offset=0, layer="only")
    w |= dict(strides=[1, 1], padding=[1, 1, 1, 1], dilation=[1, 1], groups=1)
    w |= dict(strategy="", steps=[])
    decided = dict(w, cpu_reason="", number=0)
    o, t = relax.const(np.zeros(3), "int32"), relax.const(np.array([[-3] * 3, [0] * 3, [4] * 3]))
    d = relax.const(np.ones(3), "int32")
    levels = np.arange(4)
    table = relax.const(np.minimum(np.add.outer(levels, levels), 3), "uint8")
    sums = dict(bits=2, channels=3)

    @I.ir_module
    class Before:
        @R.function
        def main(
            planes: R.Tensor((1, 4, 4, 2, 1), "uint64"),
            residual: R.Tensor((1, 4, 4, 2, 1), "uint64"),
        ):
            with R.dataflow():
                codes = T.Call("bitenc.packed_conv2d", [planes, weight, o, t, d], attrs=w)
                out = T.Call("bitenc.packed_lookup", [codes, residual, table], attrs=sums)
                R.output(out)
            return out

    @I.ir_module
    class After:
        @R.function
        def fused_bitenc_packed_conv2d_bitenc_packed_lookup1_bitenc_vta(
            planes: R.Tensor((1, 4, 4, 2, 1), "uint64"),
            residual: R.Tensor((1, 4, 4, 2, 1), "uint64"),
        ) -> R.Tensor((1, 4, 4, 2, 1), "uint64"):
            R.func_attr({"Codegen": "bitenc_vta"})

            @R.function
            def composite(
                planes: R.Tensor((1, 4, 4, 2, 1), "uint64"),
                residual: R.Tensor((1, 4, 4, 2, 1), "uint64"),
            ) -> R.Tensor((1, 4, 4, 2, 1), "uint64"):
                R.func_attr({"Composite": "bitenc_vta.residual"})
                with R.dataflow():
                    codes = T.Call("bitenc.packed_conv2d", [planes, weight, o, t, d], attrs=decided)
                    out = T.Call("bitenc.packed_lookup", [codes, residual, table], attrs=sums)
                    R.output(out)
                return out

            output = composite(planes, residual)
            return output

        @R.function
        def main(
            planes: R.Tensor((1, 4, 4, 2, 1), "uint64"),
            residual: R.Tensor((1, 4, 4, 2, 1), "uint64"),
        ):
            cls = After
            with R.dataflow():
                out = cls.fused_bitenc_packed_conv2d_bitenc_packed_lookup1_bitenc_vta(
                    planes, residual
                )
                R.output(out)
            return out

    partitioned = Partition(TARGET)(Before)
    (name,) = [var for var, f in partitioned.functions_items() if is_external(f)]
    function = partitioned[name]
    region, program = region_of(function), str(function.attrs[PROGRAM])
    assert [(part.name, part.samples) for part in region.layers] == [("only", 1)]
    accelerator = TARGET.accelerator
    assert program == dumps(compile_network(region, accelerator), accelerator)
    partitioned[name] = function.without_attr(PROGRAM)
    assert_same_ir(partitioned, After)


@pytest.mark.parametrize("strategy", ["xnor", {"only": "int8"}, {"*": "lut", "other": "auto"}])
def test_other_strategies_stay_with_the_reason(strategy, random_layer, layers_module):
    layer = random_layer(0, Encoding.signed(2, 2.0), Encoding.unsigned(2, 2.0), name="only")
    _, after = partitioned(layers_module([layer]), strategy)
    assert composites(after) == []
    reasons = []

    def note(call, _graph):
        if is_call_to(call, packed_conv2d_op):
            reasons.append(str(call.attrs[REASON]))

    visit_calls(after, note)
    asked = strategy if isinstance(strategy, str) else strategy.get("only", strategy.get("*"))
    assert reasons == [f"strategy {asked!r} was asked for"]


def test_without_an_accelerator_nothing_is_cut_out(random_layer, layers_module):
    layer = random_layer(0, Encoding.signed(2, 2.0), Encoding.unsigned(2, 2.0))
    before, _ = partitioned(layers_module([layer]))
    assert tvm_ffi.structural_equal(Partition(load_target("native"))(before), before)


def test_layers_that_no_program_takes_together_run_by_themselves(
    monkeypatch, residual_network, same
):
    """Where memory is too small for all, say."""
    compile_network = partition.compile_network

    def refuse(region, *options):
        if len(region.layers) > 1:
            raise UnsupportedError("program", "it takes too much", "Use less")
        return compile_network(region, *options)

    mod, x = residual_network()
    together = be.build(mod, target="vta")
    assert together.report().programs == 1
    monkeypatch.setattr(partition, "compile_network", refuse)
    alone = be.build(mod, target="vta")
    assert alone.report().programs == len(alone.report().layers) == 4
    assert same(alone(x), together(x))
