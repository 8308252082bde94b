"""Bundles as a user makes and runs them: exact on every target, in any number of threads."""

import shutil
import subprocess

import numpy as np
import pytest
import torch
from tvm import relax

import tvm_bitenc as be
from tests.kernel.cases import reordered
from tests.models import randomised
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import LibraryError, UnsupportedError
from tvm_bitenc.nn import BitPlaneConv2d, QLinear
from tvm_bitenc.nn.models import DigitsCNN

MACHINES = ["native", "aarch64", "armv7-neon"]
native_alone = pytest.mark.parametrize("machine", ["native"], indirect=True)
WEIGHT, ACT = Encoding.symmetric(2, 2.0), Encoding.unsigned(3, 2.0)


@pytest.fixture(scope="module")
def layer(random_layer):
    return random_layer(0, WEIGHT, ACT, channels=13, name="conv", padding=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def module(layer, module_of):
    return module_of([layer.act_codes.shape], layer.emit)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("strategy", ["xnor", "lut", "int8"])
def test_the_example_program_is_exact(strategy, made, module, layer, same):
    bundle = made(module, strategy=strategy)
    assert same(bundle(layer.input)[0], layer.reference())


@pytest.mark.sweep(1)
def test_parallel_loops_run_one_after_another(made, random_layer, module_of, same):
    layer = random_layer(1, WEIGHT, ACT, channels=64, out_channels=64, size=(24, 24), name="conv")
    bundle = made(module_of([layer.act_codes.shape], layer.emit), threads=4)
    assert same(bundle(layer.input)[0], layer.reference())


def test_outputs_of_every_kind(made, module_of, same):
    """A kernel's, one twice, an input, a constant, a view, a scalar; int and bool."""
    fixed = np.arange(4, dtype=np.int32)

    def body(builder, x, y):
        total = builder.emit(relax.op.add(x, y))
        is_large = builder.emit(relax.op.greater(x, y))
        flat = builder.emit(relax.op.reshape(builder.emit(relax.op.multiply(x, y)), (6,)))
        most = builder.emit(relax.op.max(x))
        return total, total, x, relax.const(fixed), flat, is_large, most

    x, y = np.random.default_rng(0).standard_normal((2, 2, 3)).astype(np.float32)
    outputs = made(module_of([(2, 3), (2, 3)], body))(x, y)
    expected = [x + y, x + y, x, fixed, (x * y).ravel(), x > y, x.max()]
    assert len(outputs) == len(expected)
    assert all(same(got, np.asarray(want)) for got, want in zip(outputs, expected))


@pytest.mark.sweep(1)
def test_bit_planes_of_an_image(made, same):
    torch.manual_seed(0)
    model = torch.nn.Sequential(BitPlaneConv2d(3, 16, 3, padding=1), torch.nn.ReLU()).eval()
    x = torch.randint(0, 256, (1, 3, 9, 7)).to(torch.uint8)
    bundle = made(be.from_torch(model, (x,)))
    assert same(bundle(x.numpy())[0], model(x).detach().numpy())


THREADS = r"""
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "net.h"

enum { RUNS = 20 };
struct job {
    _Alignas(NET_ALIGNMENT) unsigned char arena[NET_ARENA_BYTES];
    _Alignas(NET_ALIGNMENT) unsigned char input[NET_INPUT0_BYTES];
    _Alignas(NET_ALIGNMENT) unsigned char output[NET_OUTPUT0_BYTES], first[NET_OUTPUT0_BYTES];
    int failures;
};
static struct job jobs[2];

static void *run(void *data) {
    struct job *job = data;
    struct net net;
    job->failures = net_init(&net, job->arena, sizeof job->arena) != NET_OK;
    for (int i = 0; i < RUNS; ++i) {
        memset(job->output, 255, sizeof job->output);
        job->failures += net_run(&net, (float *)job->input, (float *)job->output) != NET_OK;
        if (i == 0) memcpy(job->first, job->output, sizeof job->first);
        job->failures += memcmp(job->first, job->output, sizeof job->first) != 0;
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[2];
    FILE *input = fopen(argv[1], "rb"), *output = fopen(argv[2], "wb");
    if (argc != 3 || !input || !output) return 2;
    for (int i = 0; i < 2; ++i)
        if (fread(jobs[i].input, 1, NET_INPUT0_BYTES, input) != NET_INPUT0_BYTES) return 2;
    for (int i = 0; i < 2; ++i) pthread_create(&threads[i], NULL, run, &jobs[i]);
    for (int i = 0; i < 2; ++i) pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; ++i) fwrite(jobs[i].output, 1, NET_OUTPUT0_BYTES, output);
    return fclose(output) || jobs[0].failures || jobs[1].failures;
}
"""


@pytest.mark.sweep(1)
def test_two_threads_with_two_arenas(made, module, layer, same):
    bundle = made(module, strategy="lut")  # Kernels that need workspace.
    inputs = np.concatenate([layer.input, layer.input[:, ::-1]])
    inputs.tofile(bundle.folder / "in.bin")
    (bundle.folder / "threads.c").write_text(THREADS)
    objects = [path.name for path in bundle.folder.glob("*.o") if path.name != "main.o"]
    command = [bundle.machine.compiler, "-std=c11", "-Wall", "-Werror", "-pthread", "threads.c"]
    subprocess.run([*command, *objects, "-lm", "-o", "threads"], cwd=bundle.folder, check=True)
    done = bundle.execute("threads", "in.bin", "out.bin")
    assert done.returncode == 0, done
    (spec,) = bundle.model.outputs
    outputs = np.fromfile(bundle.folder / "out.bin", spec.dtype).reshape(2, *spec.shape)
    assert same(outputs[0], layer.reference())
    assert same(outputs[1], be.build(module, threads=1)(np.ascontiguousarray(inputs[1:])))


@native_alone
def test_loops_run_in_threads_where_openmp_is(bundle_of, layer, module, same):
    bundle = bundle_of(module, threads=2)
    bundle.make("OPENMP=1")
    assert "GOMP_parallel" in undefined(bundle.folder, "bitenc_runtime.o")
    assert same(bundle(layer.input)[0], layer.reference())


MISUSE = r"""
#include "net.h"

NET_DEFINE_ARENA(arena);
static _Alignas(NET_ALIGNMENT) unsigned char x[NET_INPUT0_BYTES], y[NET_OUTPUT0_BYTES];

int main(void) {
    struct net net;
    if (net_init(&net, arena + 1, sizeof arena) != NET_UNALIGNED) return 1;
    if (net_init(&net, NULL, sizeof arena) != NET_UNALIGNED) return 2;
    if (net_init(&net, arena, sizeof arena - 1) != NET_TOO_SMALL) return 3;
    if (net_init(&net, arena, sizeof arena) != NET_OK) return 4;
    if (net_run(&net, (float *)(x + 2), (float *)y) != NET_UNALIGNED) return 5;
    if (net_run(&net, (float *)x, NULL) != NET_UNALIGNED) return 6;
    return net_run(&net, (float *)x, (float *)y) == NET_OK ? 0 : 7;
}
"""


@native_alone
def test_misuse_is_an_error_code(made, module):
    bundle = made(module)
    (bundle.folder / "main.c").write_text(MISUSE)
    bundle.make()
    assert bundle.execute("net").returncode == 0


@native_alone
def test_wrong_arguments_of_the_program(made, module, layer, tmp_path):
    bundle = made(module)
    assert "usage: " in bundle.execute("net").stderr
    layer.input[:, 1:].tofile(tmp_path / "short.bin")
    done = bundle.execute("net", tmp_path / "short.bin", "out.bin")
    assert done.returncode == 1 and "must have exactly 1560 bytes" in done.stderr
    done = bundle.execute("net", "none.bin", "out.bin")
    assert done.returncode == 1 and "none.bin: No such file" in done.stderr


def undefined(folder, *objects) -> set[str]:
    """Symbols that object files want from elsewhere, but for the compiler's own helpers."""
    done = subprocess.run(
        ["nm", "-u", *objects], cwd=folder, capture_output=True, text=True, check=True
    )
    names = {line.split()[-1] for line in done.stdout.splitlines() if " U " in line}
    return {name for name in names if not name.startswith("__aeabi_")}


LIBC_AND_LIBM = {"memset", "memcpy", "memmove", "nearbyintf", "expf", "tanhf", "sqrtf"}
C_LIBRARY = {"_GLOBAL_OFFSET_TABLE_"}


def check_symbols(folder) -> None:
    """Kernels need only libc, libm and the bundle; its own C needs no heap."""
    assert undefined(folder, "net_kernels.o") <= LIBC_AND_LIBM
    own = undefined(folder, "net.o", "bitenc_runtime.o")
    of_each_other = {name for name in own if name.startswith(("bitenc_", "net_"))}
    assert own - of_each_other <= C_LIBRARY


@pytest.mark.sweep(1)
def test_kernels_need_only_libc_libm_and_the_bundle(made, module):
    bundle = made(module, strategy="lut")  # With workspace, which isn't the heap's.
    check_symbols(bundle.folder)


@pytest.fixture(scope="module")
def digits():
    """A module, its input, and its outputs as compiled for this machine."""
    torch.manual_seed(0)
    model, x = DigitsCNN(2, 2).eval(), torch.randint(0, 17, (1, 1, 8, 8)).float()
    module = be.from_torch(model, (x,))
    return module, x.numpy(), be.build(module, threads=1)(x.numpy())


def check_weights(bundle) -> None:
    """Bits of W2 layers and bytes of W8 ones; beside them, thresholds and borders of 32 bits."""
    layers = {layer.name: layer for layer in bundle.model.report().layers}
    channels, taps = 64, 9
    for layer in layers["conv2"], layers["conv3"]:
        assert layer.stored_bytes == 2 * taps * channels * channels // 8
    thresholds = 4 * channels * (3 + 3 + 255)
    borders = 2 * 4 * taps * channels
    stored = sum(layer.stored_bytes for layer in layers.values())
    size = (bundle.folder / "net_weights.bin").stat().st_size
    assert stored < size < stored + thresholds + borders + 2048


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    "machine",
    [pytest.param(m, marks=[pytest.mark.slow] if "armv7" in m else []) for m in MACHINES],
    indirect=True,
)
def test_the_digits_cnn_is_exact_and_its_static_program_under_a_megabyte(bundle_of, digits, same):
    module, x, expected = digits
    # Planes, whatever is fastest on this machine.
    bundle = bundle_of(module, strategy={"conv2": "xnor", "conv3": "xnor"})
    bundle.make("STATIC=1")
    assert same(bundle(x)[0], expected)
    assert (bundle.folder / "net").stat().st_size < 1_000_000
    check_symbols(bundle.folder)
    check_weights(bundle)


@pytest.mark.sweep(1)
def test_an_mlp_of_tiles_has_less_than_4_kb_of_weights(made, same):
    """784-128-10 at four tiles, as Gorbett et al. bring it to a microcontroller."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        QLinear(784, 128, weight_bits=1, act_bits=1, tiles=4),
        torch.nn.BatchNorm1d(128),
        QLinear(128, 10, weight_bits=1, act_bits=1, tiles=2),
    )
    x = torch.randn(1, 784)
    bundle = made(be.from_torch(randomised(model), (x,)))
    assert same(bundle(x.numpy())[0], model(x).detach().numpy())
    assert bundle.model.report().stored_bytes < 4096  # In float32 it has 401 KB.
    # Thresholds, scales and the filling up of vectors included.
    assert (bundle.folder / "net_weights.bin").stat().st_size < 5120


@pytest.mark.sweep(1)
def test_rows_of_weights_are_stored_once(made, random_layer, module_of, same):
    """Channels that share them in any order have two bytes each beside."""
    one = Encoding.symmetric(1, 2.0)
    layer = random_layer(2, one, ACT, channels=256, out_channels=8, name="conv", padding=1)
    layer = reordered(layer, 64, 0)
    bundle = made(module_of([layer.act_codes.shape], layer.emit), strategy="xnor")
    assert same(bundle(layer.input)[0], layer.reference())
    assert bundle.model.report().layers[0].stored_bytes == 8 * 256 * 9 // 8 + 2 * 64
    assert (bundle.folder / "net_weights.bin").stat().st_size < 64 * 256 * 9 / 8 / 3


@pytest.mark.skipif(not shutil.which("make"), reason="apt-get install make")
def test_two_networks_in_one_program(module_of, tmp_path):
    programs = []
    for name, value in ("one", 1.0), ("two", 2.0):
        constant = relax.const(np.full(3, value, np.float32))
        mod = module_of([(3,)], lambda b, x, c=constant: b.emit(relax.op.add(x, c)))
        folder = be.build(mod, threads=1).export_c(tmp_path / name, name=name)
        subprocess.run(["make"], cwd=folder, check=True, capture_output=True)
        programs += [folder / f"{name}{part}.o" for part in ("", "_kernels", "_weights")]
    (tmp_path / "both.c").write_text(
        '#include "one/one.h"\n#include "two/two.h"\n'
        "ONE_DEFINE_ARENA(a); TWO_DEFINE_ARENA(b); static _Alignas(64) float x[3], y[3], z[3];\n"
        "int main(void) { struct one one; struct two two;\n"
        "one_init(&one, a, sizeof a); two_init(&two, b, sizeof b);\n"
        "one_run(&one, x, y); two_run(&two, y, z); return (int)z[2]; }\n"
    )
    runtime = tmp_path / "one" / "bitenc_runtime.o"
    command = ["gcc", "both.c", *programs, runtime, "-lm", "-o", "both"]
    subprocess.run(list(map(str, command)), cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "both"]).returncode == 3


def test_refusals(module, module_of, tmp_path):
    model = be.build(module, threads=1)
    with pytest.raises(LibraryError, match=r"name 'Net': can't begin names in C"):
        model.export_c(tmp_path / "bundle", name="Net")
    (tmp_path / "file").touch()
    with pytest.raises(LibraryError, match=r"file: can't be written"):
        model.export_c(tmp_path / "file")
    loaded = be.load(model.export_library(tmp_path / "net.so"))
    with pytest.raises(LibraryError, match="was loaded from a library"):
        loaded.export_c(tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "net.so"]


def test_a_dynamic_batch_is_refused(tmp_path):
    model = torch.nn.Linear(3, 2).eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(model, (torch.zeros(2, 3),), dynamic_shapes=({0: batch},))
    compiled = be.build(be.from_torch(program, (torch.zeros(2, 3),)))
    with pytest.raises(UnsupportedError, match="the batch: is known only when the model runs"):
        compiled.export_c(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_sorting_is_refused_by_name(module_of, tmp_path):
    compiled = be.build(module_of([(2, 5)], lambda b, x: b.emit(relax.op.sort(x))), threads=1)
    with pytest.raises(
        UnsupportedError, match="relax.*sort|sort.*virtual machine|virtual machine.*sort"
    ):
        compiled.export_c(tmp_path / "bundle")
