import pytest

from tvm_bitenc.target import load_target


@pytest.fixture(scope="session")
def native():
    """This machine with one thread."""
    return load_target("native", 1)
