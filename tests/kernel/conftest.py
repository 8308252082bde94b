"""Targets that these tests run kernels on, and layers without a graph around them."""

import numpy as np
import pytest

from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.host import host_features
from tvm_bitenc.layer import ConvLayer
from tvm_bitenc.schedule import avx512, vector
from tvm_bitenc.target import load_target

VECTOR = ("avx", "fma", "bmi", "f16c")


def _target(name):
    found = load_target(name)
    if found.architecture != "x86_64":
        pytest.skip(f"{name} here is no x86 target: run the tests on such a machine too")
    needed = {feature for feature in found.features if feature.startswith(VECTOR)}
    missing = sorted(needed - host_features())
    if missing:
        pytest.skip(f"this CPU lacks {missing}: run the tests on one that has them as well")
    return found


@pytest.fixture(params=["native", "x86-64-v3"])
def target(request):
    """A target with the x86 rules, skipped where this machine can't run it."""
    return _target(request.param)


@pytest.fixture
def plain_avx512():
    """AVX-512 as its first CPUs had it: neither popcount nor dot products."""
    return _target("x86-64-v4")


@pytest.fixture
def native_avx512():
    """This CPU and its `Isa`; skipped where it lacks AVX-512 or what Zen 4 has beyond."""
    found = _target("native")
    isa = avx512.isa_of(found) if found.features >= avx512.REQUIRED else None
    if isa is None or not (isa.has_wide_lookup and isa.has_dot):
        pytest.skip("this CPU lacks AVX512-VBMI or VNNI: run the tests on one that has them too")
    return found


@pytest.fixture
def kernels(monkeypatch):
    """(product, epilogue) of every kernel, as they are built."""
    found, write = [], vector.conv2d_kernel

    def record(layer, product, epilogue, *rest):
        found.append((product, epilogue))
        return write(layer, product, epilogue, *rest)

    monkeypatch.setattr(vector, "conv2d_kernel", record)
    return found


def _conv_layer(weight_codes, offset=0, thresholds=None, direction=None, size=(4, 4), **geometry):
    kappa = {
        name: tuple(2**b for b in range(geometry.pop(f"{name}_bits", 2)))
        for name in ("act", "weight")
    }
    codes = np.asarray(weight_codes, np.uint8)
    channels = codes.shape[1] * geometry.get("groups", 1)
    return ConvLayer(
        "conv",
        (1, *size, channels),
        codes,
        np.broadcast_to(np.asarray(offset, np.int32), len(codes)),
        BranchGeometry(kappa["act"], kappa["weight"], geometry.pop("act_offset", 0), **geometry),
        None if thresholds is None else np.asarray(thresholds, np.int32),
        None if direction is None else np.asarray(direction, np.int32),
    )


@pytest.fixture(scope="session")
def conv_layer():
    """``conv_layer(weight_codes, offset, thresholds, direction, act_bits=)``: a `ConvLayer`."""
    return _conv_layer
