"""Names in C: those of the model where C takes them, others where not."""

import numpy as np
import pytest

from tvm_bitenc.deploy.bundle.interface import interface, make_ports
from tvm_bitenc.entry.plan import Plan, Tensor
from tvm_bitenc.runtime.size import NOTHING, Size
from tvm_bitenc.runtime.specs import TensorSpec


def ports(*names, dtype="float32"):
    shape, nbytes = (Size(2), Size(3)), Size(6 * np.dtype(dtype).itemsize)
    inputs = [Tensor(f"input{i}", NOTHING, dtype, shape, nbytes) for i in range(len(names))]
    plan = Plan(inputs, [Tensor("output0", NOTHING, "int32", (Size(4),), Size(16))])
    return make_ports(plan, [TensorSpec(name, (2, 3), dtype) for name in names], "net")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("image", "image"),
        ("image.0", "image_0"),
        ("0image", "input_0"),
        ("größe", "gr__e"),
        ("int", "input_0"),
        ("class", "input_0"),
        ("net", "input_0"),
        ("fits", "input_0"),
    ],
)
def test_names(name, expected):
    assert ports(name)[0].name == expected


def test_names_that_become_equal():
    assert [port.name for port in ports("a.b", "a_b", "a-b")] == [
        "a_b", "input_1", "input_2", "output0",
    ]  # fmt: skip


def test_types_and_sizes():
    values = interface(ports("x", dtype="int8"), "net")
    assert values["parameters"] == "const int8_t *x, int32_t *output0"
    assert values["size_macros"].splitlines() == [
        "#define NET_INPUT0_BYTES 6",
        "#define NET_OUTPUT0_BYTES 16",
    ]
    assert " *   x: int8, 2 x 3, read" in values["documented"]
