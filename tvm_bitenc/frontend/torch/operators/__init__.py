"""Converters of torch's operators: an explicit table of what is taken.

A converter reads the arguments of a `NodeCall` by name and returns one Relax expression, or a tuple
with None for results that nothing reads. The importer refuses arguments that it didn't read, and
compares what it returns with torch's own dtypes and shapes.

================  ==================================================================
`arithmetic`      between tensors and numbers
`functions`       of single numbers: mathematics, roundings, clamps, casts
`reductions`      sums, extremes, running sums, sorting
`shaping`         shapes, joins, cuts
`indexing`        elements by their indices
`products`        convolutions and matrix products
`windows`         pooling
`normalization`   by given or own statistics
`resampling`      images of other sizes
`quantizers`      torch's fake-quantize and PT2E, tvm_bitenc's own
================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Callable

from . import (
    arithmetic,
    functions,
    indexing,
    normalization,
    products,
    quantizers,
    reductions,
    resampling,
    shaping,
    windows,
)

OPERATORS: dict[str, Callable] = {
    **arithmetic.OPERATORS,
    **functions.OPERATORS,
    **reductions.OPERATORS,
    **shaping.OPERATORS,
    **indexing.OPERATORS,
    **products.OPERATORS,
    **windows.OPERATORS,
    **normalization.OPERATORS,
    **resampling.OPERATORS,
    **quantizers.OPERATORS,
}
