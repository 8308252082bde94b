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

In TVMScript these functions are called as they stand; a call to any op may also be written as it is
printed, without its type::

    from tvm_bitenc import op as bitenc

    @R.function
    def main(x: R.Tensor((1, 2, 3, 3), "float32")):
        codes = bitenc.encode(x, Encoding.unsigned(2))
        planes = T.Call("bitenc.pack", [codes], attrs={"bits": 2, "groups": 1})
        return planes

What ``mod.script(show_meta=True)`` prints is parsed back by `tvm.script.from_source`, unless the
batch is dynamic: TVM prints the types of such calls apart from the symbols in them.
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
