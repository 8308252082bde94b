"""Networks in one program: what stays in the accelerator's memory, and what moves nothing there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tests.models import randomised
from tests.vta.cases import both, needs_verilator
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.data import data_folder
from tvm_bitenc.encoding import unpack
from tvm_bitenc.nn import QConv2d, QConvTranspose2d, ResNet18
from tvm_bitenc.simulate.programs import layer_counters, programs_of
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.pipeline import default_pipeline
from tvm_bitenc.transform.rewrite import is_external
from tvm_bitenc.vta.counters import predicted
from tvm_bitenc.vta.functional import MODULES, FunctionalSimulator
from tvm_bitenc.vta.network import compile_network
from tvm_bitenc.vta.region import region_of
from tvm_bitenc.vta.verilator import Bus, VerilatorSimulator

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = load_target("vta")


def conv(in_channels, out_channels, kind=QConv2d, kernel=3, **options):
    options = dict(weight_bits=2, act_bits=2, padding=kernel // 2, bias=False) | options
    return nn.Sequential(
        kind(in_channels, out_channels, kernel, **options), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


class Joined(nn.Module):
    """Parts of 24 and 70 channels side by side, the latter at half of the size."""

    def __init__(self, after=nn.Identity):
        super().__init__()
        self.first, self.left, self.right = conv(3, 24), conv(24, 24), conv(24, 70, stride=(2, 1))
        self.up = nn.Upsample(scale_factor=(2, 1))
        self.last, self.after = conv(94, 8), after()

    def forward(self, x):
        x = self.first(x)
        return self.after(self.last(torch.cat([self.left(x), self.up(self.right(x))], 1)))


class Strided(nn.Module):
    """Upsampled twice, and read with strides: rows of different tensors in turns."""

    def __init__(self):
        super().__init__()
        self.first, self.up = conv(3, 16), nn.Upsample(scale_factor=2)
        self.second, self.last = conv(16, 12, stride=2), conv(12, 8, kernel=2, stride=3)

    def forward(self, x):
        return self.last(self.up(self.up(self.second(self.up(self.first(x))))))


class Transposed(nn.Module):
    """Transposed convolutions: four parts each, which the next layer reads in turns."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, 16), conv(16, 12, QConvTranspose2d, 2, stride=2, padding=0),
            conv(12, 12, QConvTranspose2d, 3, stride=2, output_padding=1),
            conv(12, 8),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


class Several(nn.Module):
    """Two results of the same layer's codes, one of them of other layers between."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = conv(3, 40), conv(40, 40), conv(40, 9)

    def forward(self, x):
        x = self.first(x)
        return self.third(x), self.third(self.second(x))


class Narrow(nn.Module):
    """Convolutions of 32 channels in a row: planes of codes lie side by side."""

    def __init__(self):
        super().__init__()
        wide = dict(weight_bits=1, act_bits=4)
        self.layers = nn.Sequential(conv(3, 32), conv(32, 16, **wide), conv(16, 40), conv(40, 8))

    def forward(self, x):
        return self.layers(x)


NETWORKS = [Joined, Strided, Transposed, Several, Narrow]


def module_of(network, size=(8, 6)):
    torch.manual_seed(0)
    model, x = randomised(network()), torch.randn(2, 3, *size)
    return be.from_torch(model, (x,)), x.numpy()


def outputs_of(lib, x):
    found = lib(x)
    return found if isinstance(found, (list, tuple)) else [found]


@both
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_one_program(network, verilog, same):
    mod, x = module_of(network)
    lib = be.build(mod, target="vta", simulator="verilog" if verilog else "functional")
    wanted = outputs_of(be.build(mod, threads=1), x)
    for found, right in zip(outputs_of(lib, x), wanted, strict=True):
        assert same(found, right) and len(np.unique(right)) > 8
    (program,) = programs_of(mod, TARGET)
    names = {row.name for row in lib.report().layers}
    assert {layer.name for layer in program.layers} == names and len(names) > 2
    assert all(row.work is not None and row.work.cycles > 0 for row in lib.report().layers)
    assert lib.report().programs == 1


def test_views_that_are_returned_come_without_gaps():
    """Codes of 24 and of 70 channels, the latter's rows twice, in words as the CPU packs them."""
    mod, _ = module_of(Joined)
    before = default_pipeline(TARGET).until("bitenc.FuseFloat").run(mod)
    (function,) = (f for _, f in before.functions_items() if is_external(f))
    region = region_of(function)
    joined = next(i for i, step in enumerate(region.steps) if len(step.operands) == 2)
    first = len(region.shapes)
    left, right = region.steps[joined].operands
    part = replace(region, steps=region.steps[: joined + 1], outputs=(left, right, first + joined))
    program = compile_network(part, TARGET.accelerator)
    words = np.random.default_rng(0).integers(0, 2**64, program.operand_words, np.uint64)
    memory = program.image(words)
    FunctionalSimulator(TARGET.accelerator, memory).run(program.instructions)
    shapes = [(1, *region.steps[number - first].shape) for number in part.outputs]
    results = zip(program.outputs, program.results(memory), shapes)
    a, b, both_of = (output.shaped(x, shape) for output, x, shape in results)
    assert program.outputs[2].layout == ((1, 24), (2, 70))
    wanted = np.concatenate([unpack(a, 24), unpack(b, 70)], axis=-1)
    assert np.array_equal(unpack(both_of, 94), wanted) and len(np.unique(wanted)) > 2


def test_tensors_that_live_at_different_times_share_memory():
    torch.manual_seed(0)
    model = randomised(nn.Sequential(conv(3, 64), *(conv(64, 64) for _ in range(6))))
    mod = be.from_torch(model, (torch.zeros(1, 3, 8, 8),))
    (program,) = programs_of(mod, TARGET)
    assert len(program.layers) == 7 and program.tensor_words <= 3 * 8 * 8 * 2 * 8


@needs_verilator
@pytest.mark.sweep(2)
@pytest.mark.parametrize("latency", [1, 16, 100, 200])
def test_any_memory_and_any_order(latency):
    """Layers follow each other however slow memory is, with stalls on every channel."""
    accelerator = replace(TARGET.accelerator, latency=latency)
    target = replace(TARGET, accelerator=accelerator)
    for seed, network in enumerate((Joined, Transposed, Narrow)):
        mod, _ = module_of(network)
        (program,) = programs_of(mod, target)
        words = np.random.default_rng(seed).integers(0, 2**64, program.operand_words, np.uint64)
        memory, count = program.image(words), len(program.instructions)
        results = []
        for order in (MODULES, MODULES[::-1]):
            expected = memory.copy()
            FunctionalSimulator(accelerator, expected).run(program.instructions, order)
            results.append(expected)
        assert np.array_equal(*results)
        for stalls in ((0, 0, 0, 0), (30, 20, 50, 40)):
            found = memory.copy()
            VerilatorSimulator(accelerator, found, Bus(stalls, seed)).run_words(count)
            assert np.array_equal(found, expected)


@needs_verilator
@pytest.mark.parametrize("network", [Joined, Narrow, Several])
def test_cycle_model_of_networks(network):
    """Within 5 % of what the Verilog counts, all layers together, words exactly."""
    mod, _ = module_of(network, (24, 20))
    (program,) = programs_of(mod, TARGET)
    model = predicted(program, TARGET.accelerator)
    counted = layer_counters(program, TARGET.accelerator, "verilog")
    total = sum((cycles for _, cycles in counted[1:]), start=counted[0][1])
    assert abs(model.cycles / total.cycles - 1) < 0.05
    assert (model.steps, model.reads, model.writes) == (total.steps, total.reads, total.writes)


def float_target(tmp_path):
    source = (data_folder("targets") / "vta" / "default.toml").read_text()
    file = tmp_path / "float.toml"
    file.write_text(source.replace("units = 0", "units = 1"))
    return file


def test_numbers_and_their_codes_come_from_one_layer(tmp_path, same):
    """A residual block in float32: the sum goes on as a number and, quantized, to a convolution."""
    torch.manual_seed(0)
    model = randomised(ResNet18(2, 2, width=16))
    x = torch.randn(1, 3, 64, 64)
    mod = be.from_torch(model, (x,))
    file = float_target(tmp_path)
    lib = be.build(mod, target=file)
    assert same(lib(x.numpy()), be.build(mod, threads=1)(x.numpy()))
    programs = programs_of(mod, load_target(file))
    assert max(len(program.layers) for program in programs) > 15
    kinds = {each.kind for program in programs for each in program.outputs}
    assert kinds <= {"floats", "accumulators"}


def test_layouts_of_other_accelerators(same):
    """Four channels and four pixels at a time."""
    accelerator = Accelerator(channels=4, pixels=4)
    target = replace(TARGET, accelerator=accelerator)
    for network in (Joined, Narrow):
        mod, x = module_of(network)
        assert same(be.build(mod, target=target)(x), be.build(mod, threads=1)(x))
