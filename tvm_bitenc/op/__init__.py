"""The `bitenc` dialect of Relax: one file per op family.

===============================  ============================================================
`quantize`, `encode`             float32 to the grid, float32 to codes
`multiply_add`                   float32, rounded once: batch-norm as torch computes it
`branch_conv2d`, `branch_dense`  sums of {-1,+1} branches on uint8 codes (NCHW)
`branch_matmul`                  the same of two tensors of codes, both made at run time
`interleave`                     small images woven into a large one, of any dtype
`threshold`                      accumulators to codes
`reached`                        float32 to the number of thresholds that it reaches
`pack`, `unpack`, `packed_*`     the same on packed planes (NHWC)
===============================  ============================================================

Every op has an unscheduled lowering, so a module runs after every pass.
"""

from .branch import branch_conv2d, branch_dense
from .decode import decode
from .interleave import interleave
from .lookup import lookup
from .matmul import branch_matmul
from .multiply_add import multiply_add
from .packed import pack, packed_conv2d, packed_max_pool2d, packed_threshold, unpack
from .quantize import encode, quantize
from .reached import reached
from .threshold import threshold

__all__ = [
    "branch_conv2d",
    "branch_dense",
    "branch_matmul",
    "decode",
    "encode",
    "interleave",
    "lookup",
    "multiply_add",
    "pack",
    "packed_conv2d",
    "packed_max_pool2d",
    "packed_threshold",
    "quantize",
    "reached",
    "threshold",
    "unpack",
]
