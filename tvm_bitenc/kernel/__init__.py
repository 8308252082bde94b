"""TIR generators: kernels that TE and schedule primitives can't express.

========================  ================================================================
`tir.py`                  short names for the vector expressions that kernels are made of
`isa.py`                  what a vector instruction set offers, as expressions
`window.py`               the geometry that a kernel sees, and the tile it works on
`conv2d.py`               the loop nest of every convolution: prepare rows, walk tiles, finish
`xnor.py`                 sums of branches by xor and popcount
`lut.py`                  sums of branches by looking up sums of four activations
`int8.py`                 the same sums by products of bytes
`raw.py`                  what these sums mean: the accumulator, its thresholds
`epilogue.py`             sums become packed planes, integers or floats
========================  ================================================================

A `Product` (xnor, lut, int8) knows how a row is prepared and how a tile is summed; an `Epilogue`
knows what becomes of a sum. Both write their code into the loop nest, for any `Isa`.
"""
