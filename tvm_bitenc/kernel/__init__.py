"""TIR generators: kernels that TE and schedule primitives can't express.

=============================  ================================================================
`kernel.py`                    a kernel: a function and its constants
`tir.py`                       short names for the vector expressions that kernels are made of
`isa.py`                       what a vector instruction set offers, as expressions
`isa_meaning.py`               what each of its methods computes, in numpy
`neon.py`                      the same for NEON, which offers more
`neon_functions.py`            its instructions that LLVM has no name for
`accumulator.py`               how sums lead to accumulators, and thresholds in terms of sums
`contract.py`                  what a product, an epilogue and the loops ask of each other
`transpose.py`                 between planes and bytes
`nest/conv2d.py`               the loops of every convolution: prepare rows, walk tiles, finish
`nest/tile.py`                 how much a kernel does at once
`nest/geometry.py`             images as rows, rows with padding, blocks of channels
`nest/memory.py`               arguments as flat rows, and views of them
`nest/pixel_words.py`          the words of one input pixel
`nest/window_sums.py`          sums of one number of every pixel under windows
`product/pixelwise.py`         products that prepare their input pixel by pixel
`product/xnor.py`              sums of branches by xor and popcount
`product/byte_xnor.py`         the same where bits are counted byte by byte
`product/branch_cover.py`      which counts a sum of branches takes
`product/widening_counter.py`  counts in registers, kept narrow as long as they fit
`product/lut.py`               sums of branches by looking up sums of four activations
`product/wide_lut.py`          the same of six, 64 output channels at a time
`product/wide_sums.py`         sums of its bytes
`product/lut_plan.py`          which planes share a table, and where sums are widened
`product/lookup_sums.py`       looked-up bytes in registers, kept narrow as long as they fit
`product/int8.py`              the same sums by products of bytes
`product/neon_int8.py`         products of bytes on ARM
`product/nchw.py`              products of bytes along the rows of an image of few channels
`product/depthwise.py`         products lane by lane, where every channel is a group of its own
`epilogue/accumulators.py`     sums become accumulators
`epilogue/integers.py`         accumulators as they are
`epilogue/floats.py`           accumulators through float arithmetic
`epilogue/compared.py`         codes of few bits: comparisons with every threshold
`epilogue/affine.py`           codes of many bits: an affine function, rounded and clipped
`epilogue/affine_fit.py`       the affine function that gives a layer's codes
`epilogue/searched.py`         codes of many bits where there is none
`epilogue/channels_last.py`    where vectors of channels lie in tensors NHWC
`epilogue/planes.py`           where bits of codes lie in planes
`matmul/nest.py`               the loops of products of two matrices, both made at run time
`matmul/size.py`               their sizes, and how much is done at once
`matmul/byte_form.py`          codes as bytes that instructions multiply
`matmul/byte_products.py`      how these are multiplied and summed
`matmul/left_codes.py`         codes of the left matrix, made ready row by row
`matmul/right_codes.py`        codes of the right one, made ready in panels of columns
`matmul/wrapping.py`           arithmetic that may overflow on the way to what doesn't
`encode.py`                    float images become packed planes
`pack.py`                      codes become packed planes
`lookup.py`                    codes from codes by a table, on planes alone
=============================  ================================================================

A *product* knows how a row is prepared and how a tile is summed; an *epilogue* knows what becomes
of a sum. Both write their code into the loop nest, for any `Isa`. Which of them a layer gets, and
on which tile, is decided in `schedule/`.
"""
