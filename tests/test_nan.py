"""NaN becomes the smallest code, wherever a number becomes one; arithmetic before that keeps it."""

import numpy as np
import pytest
import torch
from tvm import relax

import tvm_bitenc as be
from benchmarks.emulated import EmulatedModule, missing_tools
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import TargetError, UnsupportedError
from tvm_bitenc.host import check_runs_here
from tvm_bitenc.levels import encoding_of_levels
from tvm_bitenc.op import encode, quantize
from tvm_bitenc.rounding import ROUND
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import Target, load_target, native_target
from tvm_bitenc.transform import no_lowering

op = relax.op
rng = np.random.default_rng(0)
# Quiet and signaling NaN of either sign and with payloads, infinities, -0, the largest numbers.
NANS = np.uint32([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF812345, 0x7FFFFFFF]).view(np.float32)
LARGEST = np.finfo(np.float32).max
SPECIAL = np.float32([*NANS, np.inf, -np.inf, -0.0, LARGEST, -LARGEST])


def mixed(shape):
    """Numbers around 0, and special ones among them at any place."""
    x = rng.normal(0, 3, shape).astype(np.float32)
    places = rng.random(shape) < 0.3
    x[places] = rng.choice(SPECIAL, np.count_nonzero(places))
    x.reshape(-1)[: SPECIAL.size] = SPECIAL
    return x


ENCODINGS = {
    **{f"unsigned {bits}": Encoding.unsigned(bits, 0.5) for bits in (1, 2, 4, 5, 8)},
    "signed": Encoding.signed(3, 0.5),
    "symmetric": Encoding.symmetric(2, 0.5),
    "sign": Encoding.symmetric(1),
    "onnx": Encoding(8, 0.25, 5.0, late_zero_point=5),
    "narrow": Encoding(4, 0.5, 7.0, max_code=14),
    "ternary": Encoding.ternary(0.5),
    "learned": Encoding(2, 0.5, 1.0, coefficients=(1, 3)),
    "levels": encoding_of_levels([0, 3, 7, 12], [-1.0, 0.25, 2.0], 0.5, 3.0),
    **{
        rounding: Encoding(3, 0.5, 2.0, rounding=rounding)
        for rounding in ROUND
        if rounding != "half_even"
    },
}


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_the_reference(encoding):
    with np.errstate(invalid="raise"):
        codes = encoding.quantize(np.append(NANS, np.float32([-np.inf, np.inf])))
    levels = encoding.dequantize(codes)
    assert np.all(codes[:-1] == 0) and np.all(levels[:-1] == levels.min())
    assert levels[-1] == levels.max() > levels[0]


@pytest.mark.parametrize("axis", [0, 1])
def test_the_reference_with_a_scale_for_each_channel(axis):
    encoding = Encoding(3, np.float32([0.5, 1, 2, 4, 8]), np.float32([0, 1, 2, 3, 4]))
    x = np.tile(NANS, (5, 1))
    assert np.all(encoding.quantize(x, axis) == 0)


def const(*values):
    return relax.const(np.float32(values if len(values) > 1 else values[0]))


F32 = np.float32
# Arithmetic in front of a quantizer: ops, and the same in numpy.
STEPS = {
    "nothing": ((), lambda x: x),
    "relu": ((op.nn.relu,), lambda x: np.maximum(x, F32(0))),
    "clip": ((lambda x: op.clip(x, -1.0, 2.0),), lambda x: np.clip(x, F32(-1), F32(2))),
    "clip to nothing": (
        (lambda x: op.clip(x, 2.0, 1.0),),
        lambda x: np.where(np.isnan(x), x, F32(1)),
    ),
    "maximum": ((lambda x: op.maximum(x, const(0.5)),), lambda x: np.maximum(x, F32(0.5))),
    "maximum of it": ((lambda x: op.maximum(const(0.5), x),), lambda x: np.maximum(x, F32(0.5))),
    "minimum": ((lambda x: op.minimum(x, const(0.5)),), lambda x: np.minimum(x, F32(0.5))),
    "maximum of two": ((lambda x: op.maximum(x, op.negative(x)),), lambda x: np.maximum(x, -x)),
    "minimum of two": ((lambda x: op.minimum(op.negative(x), x),), lambda x: np.minimum(-x, x)),
    "times 0": ((lambda x: op.multiply(x, const(0.0)),), lambda x: x * F32(0)),
    "overflow": (
        (lambda x: op.multiply(x, const(1e30)), lambda x: op.multiply(x, const(0.0))),
        lambda x: x * F32(1e30) * F32(0),
    ),
    "minus infinity": ((lambda x: op.subtract(x, const(np.inf)),), lambda x: x - F32(np.inf)),
    "leaky relu": (
        (lambda x: op.nn.leakyrelu(x, 0.125),),
        lambda x: np.where(x > 0, x, x * F32(0.125)),
    ),
    "hard swish": (
        (lambda x: op.multiply(x, op.clip(op.add(x, const(3.0)), 0.0, 6.0)),),
        lambda x: x * np.clip(x + F32(3), F32(0), F32(6)),
    ),
    "square root": ((op.sqrt,), np.sqrt),
    "absolute": ((op.abs,), np.abs),
    "floor": ((op.floor,), np.floor),
}


@pytest.fixture
def layer_behind(module_of):
    """``layer_behind(steps, encodings, x)``: a module of one layer each, and its right outputs."""

    def build(steps, encodings, x):
        ops, function = STEPS[steps]
        weight = Encoding.symmetric(2, 2.0)
        codes = rng.integers(0, 4, (8, x.shape[1], 1, 1), dtype=np.uint8)
        values = weight.dequantize(codes)

        def body(builder, given):
            for step in ops:
                given = builder.emit(step(given))
            w = builder.emit(quantize(relax.const(values), weight))
            acts = [builder.emit(quantize(given, encoding)) for encoding in encodings]
            return [builder.emit(op.nn.conv2d(a, w)) for a in acts]

        with np.errstate(all="ignore"):
            acts = [e.dequantize(e.quantize(function(x))).astype(float) for e in encodings]
        return module_of([x.shape], body), [
            np.einsum("nchw,oc->nohw", act, values[:, :, 0, 0]).astype(np.float32) for act in acts
        ]

    return build


def assert_right(outputs, expected):
    """Sums of few small multiples of a power of two: exact in any order."""
    assert len(outputs) == len(expected)
    for y, right in zip(outputs, expected):
        np.testing.assert_array_equal(y, right)


SOME = [ENCODINGS[name] for name in ("unsigned 2", "signed", "sign", "onnx", "ternary")]
PATHS = {
    "not lowered": dict(pipeline=no_lowering),
    **{strategy: dict(strategy=strategy) for strategy in STRATEGIES},
    "plain": dict(target=Target("generic", native_target().tvm_target, ("generic",))),
}


SOME_STEPS = ("clip", "maximum of two", "overflow")


@pytest.mark.sweep(3)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "steps",
    [name if name in SOME_STEPS else pytest.param(name, marks=pytest.mark.slow) for name in STEPS],
)
def test_steps_before_a_layer(steps, path, layer_behind, outputs_of):
    x = mixed((1, 64, 3, 3))
    mod, expected = layer_behind(steps, SOME[:4], x)
    assert_right(outputs_of(mod, [x], threads=1, **PATHS[path]), expected)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, 8, 20, 64, 72])
@pytest.mark.parametrize("path", ["not lowered", "xnor", "int8"])
def test_all_encodings(path, channels, layer_behind, outputs_of):
    x = mixed((2, channels, 4, 3))
    mod, expected = layer_behind("nothing", list(ENCODINGS.values()), x)
    assert_right(outputs_of(mod, [x], threads=1, **PATHS[path]), expected)


@pytest.mark.skipif(native_target().architecture != "x86_64", reason="these instructions are x86's")
@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4"])
def test_vectors_of_other_x86_cpus(name, layer_behind, outputs_of):
    target = load_target(name, threads=1)
    try:
        check_runs_here(target)
    except TargetError:
        pytest.skip(f"run on a CPU that runs {name}")
    x = mixed((1, 64, 3, 3))
    mod, expected = layer_behind("clip", SOME, x)
    assert_right(outputs_of(mod, [x], target=target), expected)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("name", ["cortex-a53", "armv7-neon"])
def test_vectors_of_arm(name, layer_behind):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    x = mixed((1, 64, 3, 3))
    mod, expected = layer_behind("clip", SOME[:4], x)
    assert_right(EmulatedModule(mod, target).run(x).outputs, expected)


def test_the_accelerator(layer_behind, outputs_of):
    x = mixed((1, 64, 3, 3))
    mod, expected = layer_behind("relu", SOME[:3], x)
    assert_right(outputs_of(mod, [x], target="vta"), expected)


@pytest.mark.parametrize("path", PATHS)
def test_codes_themselves(path, module_of, outputs_of):
    x = mixed((1, 16, 5, 7))
    encodings = list(ENCODINGS.values())
    mod = module_of([x.shape], lambda b, x: [b.emit(encode(x, e)) for e in encodings])
    outputs = outputs_of(mod, [x], **PATHS[path])
    assert_right(outputs, [encoding.quantize(x) for encoding in encodings])


# Behind a layer, with a NaN that a shortcut brings.
BEHIND = {
    "relu": (op.nn.relu, lambda y: np.maximum(y, F32(0))),
    "clip": (lambda y: op.clip(y, -1.0, 1.0), lambda y: np.clip(y, F32(-1), F32(1))),
    "maximum": (lambda y: op.maximum(y, const(0.5)), lambda y: np.maximum(y, F32(0.5))),
    "minimum": (lambda y: op.minimum(y, const(0.5)), lambda y: np.minimum(y, F32(0.5))),
    "maximum with NaN": (lambda y: op.maximum(y, const(np.nan)), lambda y: y * F32(np.nan)),
    "leaky relu": (
        lambda y: op.nn.leakyrelu(y, 0.125),
        lambda y: np.where(y > 0, y, y * F32(0.125)),
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_steps_behind_a_layer(path, random_layer, module_of, outputs_of):
    sizes = dict(channels=64, out_channels=64, kernel=1)
    layer = random_layer(0, Encoding.symmetric(2, 2.0), Encoding.unsigned(2, 2.0), **sizes)

    def body(builder, x, shortcut):
        totals = [builder.emit(op.add(layer.emit(builder, x), shortcut)) for _ in BEHIND]
        return [builder.emit(step(y)) for (step, _), y in zip(BEHIND.values(), totals)]

    shortcut = mixed(layer.reference().shape)
    mod = module_of([layer.act_codes.shape, shortcut.shape], body)
    outputs = outputs_of(mod, [layer.input, shortcut], threads=1, **PATHS[path])
    with np.errstate(all="ignore"):
        total = layer.reference() + shortcut
        assert_right(outputs, [function(total) for _, function in BEHIND.values()])


def test_weights_that_are_nan_are_refused(module_of):
    encoding, values = Encoding.symmetric(2, 1.0), rng.normal(size=(64, 8)).astype(np.float32)
    values[3, 5] = np.nan

    def body(builder, given):
        acts = builder.emit(quantize(given, Encoding.unsigned(2, 0.5)))
        return builder.emit(op.matmul(acts, builder.emit(quantize(relax.const(values), encoding))))

    with pytest.raises(UnsupportedError, match="its weight has NaN"):
        be.build(module_of([(4, 64)], body))


def test_fake_quantize_of_torch():
    class Net(torch.nn.Module):
        def forward(self, x):
            x = torch.fake_quantize_per_tensor_affine(torch.relu(x), 0.25, 5, 0, 255)
            return torch.nn.functional.conv2d(x, torch.eye(16).reshape(16, 16, 1, 1))

    x = torch.from_numpy(mixed((1, 16, 3, 4)))
    expected = torch.fake_quantize_per_tensor_affine(torch.relu(x), 0.25, 5, 0, 255).numpy()
    mod = be.from_torch(Net(), (torch.rand(x.shape),))
    for options in (dict(pipeline=no_lowering), {}):
        assert_right([be.build(mod, **options)(x)], [expected])


@pytest.mark.parametrize("zero_point", [np.uint8(7), np.int8(5)], ids=["uint8", "int8"])
def test_quantize_linear_of_onnx_runtime(zero_point):
    onnx = pytest.importorskip("onnx", reason="pip install 'tvm-bitenc[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    helper, x = onnx.helper, mixed((2, 16))
    constants = {"scale": F32(0.25), "zero": zero_point, "weight": np.eye(16, dtype=np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
            helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["levels"]),
            helper.make_node("MatMul", ["levels", "weight"], ["y"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, x.shape)],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    peer = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = peer.run(None, {"x": x})
    mod = be.from_onnx(model)
    for options in (dict(pipeline=no_lowering), {}):
        assert_right([be.build(mod, **options)(x)], [expected])
