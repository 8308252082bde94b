"""Codes stay bytes where all who make and read them can do with bytes."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_bitenc import op as bitenc
from tvm_bitenc.op.packed import packed_conv2d_op, packed_max_pool2d_op
from tvm_bitenc.op.packed_channels import packed_concat
from tvm_bitenc.op.registration import is_call_to, make_call
from tvm_bitenc.records.workload import parse_workload, workload_of
from tvm_bitenc.target import load_target
from tvm_bitenc.transform.codes_as_bytes import CodesAsBytes
from tvm_bitenc.transform.visit import visit_calls

TARGET = load_target("znver4")
SHAPE, CHANNELS = (1, 6, 6, 64), 64
rng = np.random.default_rng(0)
W = relax.const(rng.integers(0, 8, (CHANNELS, CHANNELS, 1, 1)), "uint8")
OFFSET = relax.const(np.zeros(CHANNELS), "int32")
LIMITS = relax.const(np.sort(rng.integers(-900, 900, (7, CHANNELS)), 0), "int32")
UP = relax.const(np.ones(CHANNELS), "int32")
KAPPA = [1, 2, 4]
ATTRS = dict(act_coefficients=KAPPA, weight_coefficients=KAPPA, act_offset=0, layer="conv")
ATTRS |= dict(strides=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, steps=[])
INT8 = dict(ATTRS, strategy="int8", tile=[], origin="default rule")
XNOR = dict(INT8, strategy="xnor")
POOL = dict(pool_size=[2, 2], strides=[2, 2], padding=[0, 0, 0, 0], dilation=[1, 1])


@I.ir_module
class Before:
    @R.function
    def main(codes: R.Tensor((1, 6, 6, 64), "uint8")):
        with R.dataflow():
            planes = bitenc.pack(codes, 3)
            a = T.Call("bitenc.packed_conv2d", [planes, W, OFFSET, LIMITS, UP], attrs=INT8)
            b = T.Call("bitenc.packed_conv2d", [a, W, OFFSET], attrs=INT8)
            R.output(b)
        return b


@I.ir_module
class After:
    @R.function
    def main(codes: R.Tensor((1, 6, 6, 64), "uint8")):
        with R.dataflow():
            a = T.Call(
                "bitenc.packed_conv2d",
                [codes, W, OFFSET, LIMITS, UP],
                attrs=dict(INT8, source="bytes", ending="bytes"),
            )
            b = T.Call("bitenc.packed_conv2d", [a, W, OFFSET], attrs=dict(INT8, source="bytes"))
            R.output(b)
        return b


def test_golden(assert_same_ir):
    assert_same_ir(CodesAsBytes(TARGET)(Before), After)


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4", "cortex-a72"])
def test_targets_without_such_kernels_keep_planes(name, assert_same_ir):
    assert_same_ir(CodesAsBytes(load_target(name))(Before), Before)


def conv(builder, planes, attrs=INT8, ends_in_codes=True):
    ending = [LIMITS, UP] if ends_in_codes else []
    arguments = [planes, W, OFFSET, *ending]
    return builder.emit(make_call(packed_conv2d_op, arguments, **attrs))


def made(module_of, body, shapes=(SHAPE,)):
    """A module, and the sources and endings of its convolutions behind the pass, in order."""
    mod, found = module_of(list(shapes), body, "uint8"), []

    def see(call, _graph):
        if is_call_to(call, packed_conv2d_op):
            found.append("".join(str(call.attrs.get(n, "-"))[0] for n in ("source", "ending")))

    after = CodesAsBytes(TARGET)(mod)
    visit_calls(after, see)
    return mod, after, " ".join(found)


def same_numbers(mod, after, outputs_of, only, same, shapes=(SHAPE,)):
    codes = [rng.integers(0, 8, shape, dtype=np.uint8) for shape in shapes]
    before, after = (outputs_of(m, codes, pipeline=only()) for m in (mod, after))
    return all(same(a, b) for a, b in zip(before, after, strict=True))


def test_both_compute_the_same(outputs_of, only, same):
    assert same_numbers(Before, After, outputs_of, only, same)


def test_one_reader_that_wants_planes_has_them(module_of, outputs_of, only, same):
    def body(builder, codes):
        a = conv(builder, builder.emit(bitenc.pack(codes, 3)))
        return [conv(builder, a, ends_in_codes=False), conv(builder, a, XNOR, False)]

    mod, after, found = made(module_of, body)
    assert found == "b- -- --"  # What is packed from codes is there as bytes in any case.
    assert same_numbers(mod, after, outputs_of, only, same)


def test_an_output_of_planes_stays_one(module_of):
    _, _, found = made(module_of, lambda b, x: conv(b, b.emit(bitenc.pack(x, 3))))
    assert found == "b-"


def test_pools_and_pixels_and_channels_are_moved_in_bytes(
    module_of, outputs_of, only, same, ops_of
):
    rows = relax.const(np.repeat(np.arange(3), 2), "int64")

    def body(builder, codes):
        a = conv(builder, builder.emit(bitenc.pack(codes, 3)))
        pooled = make_call(packed_max_pool2d_op, [a], **POOL, out_size=[3, 3])
        b = conv(builder, builder.emit(pooled))
        for axis in (1, 2):
            b = builder.emit(relax.op.take(b, rows, axis, "clip"))
        joined = builder.emit(relax.op.concat([a, b], 4))
        sliced = builder.emit(packed_concat([joined, a], [128, 64]))
        return builder.emit(bitenc.unpack(sliced, 192))

    mod, after, found = made(module_of, body)
    assert found == "bb bb"
    assert not {"bitenc.pack", "bitenc.unpack", "relax.concat"} & set(ops_of(after))
    assert same_numbers(mod, after, outputs_of, only, same)


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    "window, out_size, found",
    [
        (dict(pool_size=[3, 3], strides=[2, 2]), [2, 2], "bb b-"),
        (dict(pool_size=[3, 3], strides=[2, 2]), [3, 3], "bb b-"),  # The last window is cut off.
        (dict(pool_size=[3, 2], strides=[2, 1], padding=[1, 0, 1, 1]), [3, 6], "bb b-"),
        (dict(pool_size=[2, 2], strides=[1, 1], dilation=[2, 3]), [4, 3], "bb b-"),
        (dict(pool_size=[3, 3], strides=[2, 2]), [2, 3], "b- --"),  # Neither all cut off nor whole.
    ],
)
def test_windows_of_pools(window, out_size, found, module_of, outputs_of, only, same):
    def body(builder, codes):
        a = conv(builder, builder.emit(bitenc.pack(codes, 3)))
        pooled = make_call(packed_max_pool2d_op, [a], **{**POOL, **window}, out_size=out_size)
        return conv(builder, builder.emit(pooled), ends_in_codes=False)

    mod, after, chosen = made(module_of, body)
    assert chosen == found
    assert same_numbers(mod, after, outputs_of, only, same)


@pytest.mark.parametrize(
    "move",
    [
        lambda a: relax.op.take(a, relax.const(np.zeros(1), "int64"), -1, "clip"),
        lambda a: relax.op.take(a, relax.const(np.arange(3)[::-1].copy(), "int64"), 3, "clip"),
        lambda a: relax.op.concat([a, a], 2),
    ],
    ids=["words", "bits", "columns"],
)
def test_other_moves_are_made_in_planes(move, module_of, outputs_of, only, same):
    def body(builder, codes):
        a = conv(builder, builder.emit(bitenc.pack(codes, 3)))
        return conv(builder, builder.emit(move(a)), ends_in_codes=False)

    mod, after, found = made(module_of, body)
    assert found == "b- --"
    assert same_numbers(mod, after, outputs_of, only, same)


def test_what_is_joined_with_planes_stays_planes(module_of, outputs_of, only, same):
    def body(builder, codes):
        planes = builder.emit(bitenc.pack(codes, 3))
        a, b = conv(builder, planes), conv(builder, planes, XNOR)
        joined = builder.emit(relax.op.concat([a, b], 4))
        return [builder.emit(bitenc.unpack(joined, 128)), conv(builder, b, XNOR, False)]

    mod, after, found = made(module_of, body)
    assert found == "b- -- --"
    assert same_numbers(mod, after, outputs_of, only, same)


def test_a_module_without_int8_is_not_touched(module_of, assert_same_ir):
    def body(builder, codes):
        return conv(builder, builder.emit(bitenc.pack(codes, 3)), XNOR, False)

    mod, after, _ = made(module_of, body)
    assert_same_ir(after, mod)


def test_bytes_are_what_records_know_them_by(module_of):
    def body(builder, codes):
        a = conv(builder, builder.emit(bitenc.pack(codes, 3)))
        return conv(builder, a, ends_in_codes=False)

    _, after, _ = made(module_of, body)
    texts = []

    def see(call, _graph):
        if is_call_to(call, packed_conv2d_op):
            texts.append(workload_of(call, TARGET))

    visit_calls(after, see)
    assert " from=bytes to=B3 " in texts[0] and " from=bytes to=int32 " in texts[1]
    assert [str(parse_workload(text)) for text in texts] == texts
    assert parse_workload(texts[0]).out_bits == 3
