"""TIR generators: kernels that TE and schedule primitives can't express.

========================  ==================================================================
`tir.py`                  short names for the vector expressions that kernels are made of
`isa.py`                  what a vector instruction set offers, as expressions
`window.py`               the geometry that a kernel sees, and the tile it works on
`conv2d.py`               the loop nest of every convolution: prepare rows, walk tiles, finish
`xnor.py`                 sums of branches by xor and popcount
`lut.py`                  sums of branches by looking up sums of four activations
`int8.py`                 the same sums by products of bytes
`planar.py`               products of bytes along the rows of an image of few channels
`depthwise.py`            products lane by lane, where every channel is a group of its own
`raw.py`                  what these sums mean: the accumulator, its thresholds
`epilogue.py`             sums become packed planes, integers or floats
`encode.py`               float images become packed planes: the one kernel that is no convolution
========================  ==================================================================

A *product* (a class of one of the five files in the middle) knows how a row is prepared and how a
tile is summed; an *epilogue* knows what becomes of a sum. Both write their code into the loop nest,
for any `Isa`. Which of them a layer gets, and on which tile, is decided in `schedule/`.
"""
