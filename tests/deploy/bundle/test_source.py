"""Tables of net.c, and what they can't hold."""

import pytest

from tvm_bitenc.deploy.bundle.plan import Plan, Step, Tensor
from tvm_bitenc.deploy.bundle.source import MAX_ARGUMENTS, render, tables
from tvm_bitenc.errors import UnsupportedError


def test_tables():
    scalar, x = Tensor("weights", 64, "bool", ()), Tensor("input0", 0, "int16", (2, 3))
    plan = Plan([x], [], [x, scalar], [Step("mask", (0, 1)), Step(None, (1, 0))])
    text = {name: table.strip() for name, table in tables(plan, "net").items()}
    assert text["declarations"] == "bitenc_kernel __tvm_ffi_net_mask;"
    assert text["shapes"].split() == ["2,", "3,", "1,"]
    assert text["tensors"].splitlines()[0].startswith("{2, 2, 0, 16, 0u, 12u, shapes + 0}")
    assert text["tensors"].splitlines()[1].strip().startswith("{1, 0, 6, 8, 64u, 1u, shapes + 2}")
    assert text["steps"].splitlines() == [
        '{__tvm_ffi_net_mask, "mask", 2, arguments + 0},',
        '    {NULL, "copy", 2, arguments + 2},',
    ]


def test_limits():
    x = Tensor("input0", 0, "float32", (1,))
    with pytest.raises(UnsupportedError, match=rf"at most {MAX_ARGUMENTS}"):
        tables(Plan([x], [], [x], [Step("concat", (0,) * (MAX_ARGUMENTS + 1))]), "net")
    odd = Tensor("input0", 0, "bfloat16", (1,))
    with pytest.raises(UnsupportedError, match="type bfloat16"):
        tables(Plan([odd], [], [odd], []), "net")


def test_the_limit_is_the_runtimes():
    assert f"#define BITENC_MAX_ARGUMENTS {MAX_ARGUMENTS}\n" in render("bitenc_runtime.h")
