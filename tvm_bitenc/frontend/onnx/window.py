"""Kernel size, strides, dilations and pads of the operators that have them."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto

from ...errors import UnsupportedError
from .importer import Importer
from .model import describe_node

_SAME = ("SAME_UPPER", "SAME_LOWER")
_MOST = 2**20  # Of a stride or the like: beyond, int32 index arithmetic may overflow.


class Window:
    """Kernel size, strides, dilations and pads of a node, one number per spatial axis, checked."""

    def __init__(self, importer: Importer, node: NodeProto, kernel: list[int] | None):
        self.node = node
        self.attributes = importer.attributes(node)
        has_mode = "auto_pad" in self.attributes.defaults
        self.auto_pad = self.attributes.text("auto_pad") if has_mode else "NOTSET"
        sizes = importer.shape(node.input[0])[2:]
        self.rank = len(sizes)
        self.kernel = self.integers("kernel_shape", [] if kernel is None else kernel, 1)
        if kernel is not None and list(kernel) != self.kernel:
            raise self._error("kernel_shape", self.kernel, f"its weight has {kernel}")
        self.strides = self.integers("strides", [1] * self.rank, 1)
        self.dilations = self.integers("dilations", [1] * self.rank, 1)
        self.extents = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations)]
        self.pads = self._pads(sizes)
        if node.op_type not in ("ConvTranspose", "MaxUnpool"):
            self._check_output(sizes)

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is a positive integer."""
        value = self.attributes.get(name, default)
        if not 1 <= value <= _MOST:
            raise self._error(name, value, "not positive")
        return value

    def integers(
        self, name: str, default: Sequence[int], least: int, count: int | None = None
    ) -> list[int]:
        """Return an attribute of several integers, by default one per spatial axis."""
        count = self.rank if count is None else count
        values = [int(v) for v in self.attributes.get(name, default)]
        if len(values) != count or any(not least <= v <= _MOST for v in values):
            raise self._error(name, values, f"expected {count} integers from {least}")
        return values

    def _pads(self, sizes: list[int]) -> list[int]:
        mode = self.auto_pad
        if mode not in ("NOTSET", "VALID", *_SAME):
            raise self._error("auto_pad", mode, "unknown")
        none = [0] * 2 * self.rank
        stated = self.integers("pads", none, 0, 2 * self.rank)
        if mode in _SAME and self.node.op_type not in ("ConvTranspose", "MaxUnpool"):
            return self._same(sizes, mode == "SAME_LOWER")
        return none if mode == "VALID" else stated

    def _same(self, sizes: list[int], extra_first: bool) -> list[int]:
        """Pads that make the output ``ceil(size / stride)``; an odd one goes to one end."""
        if not all(isinstance(size, int) for size in sizes):
            raise self._error("auto_pad", self.auto_pad, "needs fixed shapes")
        total = [
            max((-(-size // stride) - 1) * stride + extent - size, 0)
            for size, stride, extent in zip(sizes, self.strides, self.extents)
        ]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        return more + less if extra_first else less + more

    def _check_output(self, sizes: list[int]) -> None:
        """Refuse a window that is larger than its padded input."""
        pads = [a + b for a, b in zip(self.pads, self.pads[len(sizes) :])]
        for size, pad, extent in zip(sizes, pads, self.extents):
            if isinstance(size, int) and size + pad < extent:
                raise self._error("kernel_shape", self.kernel, f"its input is {sizes}")

    def _error(self, name: str, value: object, cause: str) -> UnsupportedError:
        return UnsupportedError(
            describe_node(self.node), f"has {name} {value}: {cause}", "Export the model again"
        )
