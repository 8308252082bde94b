"""Products and epilogues keep their contract, and what loops hand them can't be changed."""

import dataclasses
import inspect
from itertools import chain

import pytest

from tvm_bitenc.kernel import epilogue, product
from tvm_bitenc.kernel.contract import Epilogue, Prepared, Product, TaskContext, TileContext
from tvm_bitenc.kernel.epilogue import affine, compared, floats, integers, searched
from tvm_bitenc.kernel.product import nchw
from tvm_bitenc.schedule import arm, x86


def products_of(family):
    """Classes of a family, in a fixed order: parallel test runs must collect alike."""
    return dict.fromkeys([*chain(*family.products.values()), *family.depthwise, nchw.Nchw])


PRODUCTS = [(family, kind) for family in (x86.FAMILY, arm.FAMILY) for kind in products_of(family)]
EPILOGUES = [
    integers.Integers,
    floats.Floats,
    compared.ComparedPlanes,
    affine.AffinePlanes,
    searched.SearchedPlanes,
]


@pytest.mark.parametrize("family, kind", PRODUCTS, ids=lambda value: getattr(value, "name", ""))
def test_products_offer_all_that_loops_and_rules_ask(family, kind):
    assert issubclass(kind, Product) and not inspect.isabstract(kind)
    assert kind.name in family.sizes


@pytest.mark.parametrize("kind", EPILOGUES, ids=lambda kind: kind.__name__)
def test_epilogues_offer_all_that_loops_ask(kind):
    assert issubclass(kind, Epilogue) and not inspect.isabstract(kind)
    assert isinstance(kind.out_dtype, str)


def test_what_is_missing_is_found_when_a_class_is_used():
    class Half(Product):
        name = "half"

    with pytest.raises(TypeError, match="abstract"):
        Half(None, None, None)


@pytest.mark.parametrize("kind", [TaskContext, Prepared, TileContext])
def test_contexts_are_frozen(kind):
    values = dict.fromkeys(field.name for field in dataclasses.fields(kind) if field.init)
    context = kind(**values)
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(context, field.name, 1)


@pytest.mark.parametrize("package", [epilogue, product], ids=lambda package: package.__name__)
def test_packages_hold_no_code(package):
    assert package.__doc__ and not inspect.getmembers(package, inspect.isfunction)
