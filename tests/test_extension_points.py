"""A spelling, a pass, a target and an instruction set from outside: nothing here is edited.

Each test would pass vacuously if its extension weren't used, so each asserts that it was.
"""

from dataclasses import replace

import pytest
import torch
import tvm
from torch import nn
from tvm import s_tir

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.isa import Isa
from tvm_bitenc.op.packed import packed_conv2d_op, unscheduled_compute
from tvm_bitenc.op.quantize import quantize
from tvm_bitenc.op.registration import constant_value, is_call_to, with_attributes
from tvm_bitenc.records.workload import target_key
from tvm_bitenc.schedule import Kernel, RuleSet, x86
from tvm_bitenc.schedule.vector import vector_rules
from tvm_bitenc.target import load_target, native_target
from tvm_bitenc.te.function import prim_func
from tvm_bitenc.transform import canonicalize, default_pipeline, no_lowering, quantizer_spelling
from tvm_bitenc.transform.analysis.float32 import op_name
from tvm_bitenc.transform.rewrite import rewrite_calls


class Signs(nn.Module):
    """Two layers with a sign that the package doesn't know: x / |x|, for x that is never 0."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(5, 16, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(16, 6, 3, stride=2, bias=False)

    def forward(self, x):
        for conv in (self.conv1, self.conv2):
            a, w = (v / v.abs() for v in (x + 0.5, conv.weight))
            x = nn.functional.conv2d(a, w, None, conv.stride, conv.padding)
        return x


@pytest.fixture(scope="module")
def signs():
    torch.manual_seed(0)
    model, x = Signs().eval(), torch.randn(2, 5, 8, 8)
    return be.from_torch(model, (x,)), x, model(x).detach().numpy()


@pytest.fixture
def spelling(monkeypatch):
    """The new spelling, for one test."""
    monkeypatch.setattr(canonicalize, "_spellings", [*canonicalize._spellings])

    @quantizer_spelling
    def divided_by_its_size(call, graph):
        if op_name(call) != "relax.divide":
            return None
        size = graph.definition(call.args[1])
        if op_name(size) != "relax.abs":
            return None
        x, y = (graph.definition(value) for value in (call.args[0], size.args[0]))
        return quantize(call.args[0], Encoding.symmetric(1, 2.0)) if x.same_as(y) else None

    return divided_by_its_size


def test_a_spelling_is_one_function(signs, spelling, same):
    mod, x, expected = signs
    lib = be.build(mod)
    assert [(row.weight_bits, row.act_bits) for row in lib.report().layers] == [(1, 1)] * 2
    assert [row.out_bits for row in lib.report().layers] == [1, 32]
    assert not lib.report().float_layers
    assert same(lib(x), expected)


def test_without_the_spelling_the_layers_stay_float(signs):
    report = be.build(signs[0]).report()
    assert not report.layers and len(report.float_layers) == 2


@tvm.transform.module_pass(opt_level=0, name="outside.LastLayerBy")
class LastLayerBy:
    """Give the layer that ends in accumulators, not codes, a strategy of one's own choice."""

    def __init__(self, strategy):
        self.strategy = strategy

    def transform_module(self, mod, _ctx):
        def choose(call, _graph):
            is_last = is_call_to(call, packed_conv2d_op) and len(call.args) == 3
            return with_attributes(call, strategy=self.strategy) if is_last else None

        return rewrite_calls(mod, choose)


@pytest.mark.parametrize("strategies", [("xnor", "int8"), ("int8", "xnor")], ids=str)
def test_a_pass_is_one_class_and_a_place(strategies, signs, spelling, same):
    mod, x, expected = signs

    def pipeline(target, strategy, records):
        added = LastLayerBy(strategies[1])
        return default_pipeline(target, strategy, records).insert_after("bitenc.Strategy", added)

    lib = be.build(mod, strategy=strategies[0], pipeline=pipeline)
    assert tuple(row.strategy for row in lib.report().layers) == strategies
    ran = [name for name in lib.benchmark(x, number=1, repeat=1).layers if "packed_conv" in name]
    assert [name.split("_")[-1] for name in ran] == list(strategies)
    assert same(lib(x), expected)


TOML = """
description = "A CPU with a rule of its own"

[tvm]
mcpu = "{cpu}"

[schedule]
rules = ["outside", "generic"]
"""


def marked(call, _target):
    """Mark kernels as made by this rule."""
    if not is_call_to(call, packed_conv2d_op):
        return None
    compute, inputs = unscheduled_compute(call)
    schedule = s_tir.Schedule(prim_func(compute, inputs))
    last = schedule.get_child_blocks(schedule.get_sblock("root"))[-1]
    schedule.annotate(schedule.get_loops(last)[0], "outside.rule", 1)
    return Kernel(schedule.mod["main"], [constant_value(value) for value in inputs[1:]])


@pytest.fixture
def board(tmp_path):
    """The new target: a file, and the rule set that it names."""
    path = tmp_path / "board.toml"
    path.write_text(TOML.format(cpu=native_target().tvm_target.attrs["mcpu"]))
    return load_target(path, rule_sets=[RuleSet("outside", (marked,))])


@tvm.ir.instrument.pass_instrument
class Scheduled:
    """Scripts of the kernels that the pass bitenc.Schedule made."""

    def __init__(self):
        self.scripts = {}

    def run_after_pass(self, mod, info):
        if info.name == "bitenc.Schedule":
            self.scripts = {v.name_hint: f.script() for v, f in mod.functions_items()}


def test_a_target_is_one_file_and_one_function(signs, spelling, board, same):
    mod, x, expected = signs
    watch = Scheduled()
    with tvm.transform.PassContext(instruments=[watch]):
        lib = be.build(mod, target=board)
    marked = {name for name, script in watch.scripts.items() if "outside.rule" in script}
    assert len(marked) == 2 and all("packed_conv2d" in name for name in marked)
    assert marked <= set(lib.benchmark(x, number=1, repeat=1).layers)
    assert lib.target.name == lib.report().target == "board"
    assert same(lib(x), expected)


def test_all_three_together(signs, spelling, board, same):
    mod, x, expected = signs
    watch = Scheduled()

    def pipeline(*arguments):
        return default_pipeline(*arguments).insert_after("bitenc.Strategy", LastLayerBy("int8"))

    with tvm.transform.PassContext(instruments=[watch]):
        lib = be.build(mod, target=board, strategy="xnor", pipeline=pipeline)
    assert [row.strategy for row in lib.report().layers] == ["xnor", "int8"]
    assert sum("outside.rule" in script for script in watch.scripts.values()) == 2
    assert same(lib(x), expected)
    assert same(be.build(mod, pipeline=no_lowering)(x), expected)


SSSE3 = {
    "lookup": "llvm.x86.ssse3.pshuf.b.128",
    "sum_bytes": "llvm.x86.sse2.psad.bw",
    "multiply_add_bytes": "llvm.x86.ssse3.pmadd.ub.sw.128",
    "multiply_add_words": "llvm.x86.sse2.pmadd.wd",
}
SSSE3_TOML = """
[tvm]
mtriple = "x86_64-linux-gnu"
mcpu = "x86-64-v2"

[schedule]
rules = ["ssse3", "generic"]
"""


def ssse3_of(target):
    """Vectors of 16 bytes, which the package has no rules for."""
    return Isa("ssse3", 16, 16, SSSE3) if "ssse3" in target.features else None


@pytest.fixture
def old_cpu(tmp_path):
    """A CPU of an instruction set from outside: one `Isa`, one `RuleSet`, one file."""
    if native_target().architecture != "x86_64":
        pytest.skip("SSSE3 runs on x86 alone: run the tests on such a machine as well")
    # Two lanes to a vector: eight channels, whose bits fill a byte, take four of them.
    family = replace(x86.FAMILY, sizes={**x86.SIZES, "xnor": lambda layer, isa: (4, 2)})
    path = tmp_path / "old.toml"
    path.write_text(SSSE3_TOML)
    return load_target(path, rule_sets=[vector_rules("ssse3", family, ssse3_of, {"ssse3"})])


@pytest.mark.parametrize(
    "strategy, instruction",
    [("xnor", "psad.bw"), ("lut", "pshuf.b.128"), ("int8", "pmadd.ub.sw.128")],
)
def test_an_instruction_set_is_one_isa_and_one_rule_set(
    strategy, instruction, old_cpu, random_layer, layers_module, same
):
    encodings = Encoding.symmetric(2, 2.0), Encoding.unsigned(2, 2.0)
    layer = random_layer(0, *encodings, channels=17, out_channels=20, padding=1)
    watch = Scheduled()
    with tvm.transform.PassContext(instruments=[watch]):
        lib = be.build(layers_module([layer]), target=old_cpu, strategy=strategy)
    (kernel,) = [script for name, script in watch.scripts.items() if "packed_conv2d" in name]
    assert instruction in kernel
    assert same(lib(layer.input), layer.reference())
    assert target_key(old_cpu).endswith(" ssse3")
