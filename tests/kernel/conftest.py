"""Targets that these tests run kernels on."""

from dataclasses import replace

import pytest

from tvm_bitenc.target import DEFAULT_RULES, host_features, load_target

TARGETS = ("native", "x86-64-v3")
VECTOR = ("avx", "fma", "bmi", "f16c")


@pytest.fixture(params=TARGETS)
def target(request):
    """A target with the x86 rules, skipped where this machine can't run it."""
    found = replace(load_target(request.param), rules=DEFAULT_RULES)
    if found.architecture != "x86_64":
        pytest.skip(f"{request.param} here is no x86 target: run the tests on such a machine too")
    needed = {name for name in found.features if name.startswith(VECTOR)}
    missing = sorted(needed - host_features())
    if missing:
        pytest.skip(f"this CPU lacks {missing}: run the tests on one that has them as well")
    return found
