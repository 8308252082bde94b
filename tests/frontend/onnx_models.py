"""Small ONNX models for tests, and what ONNX Runtime makes of them."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

MICROSOFT = "com.microsoft"


class ModelBuilder:
    """An ONNX graph under construction: nodes, and constants named one by one.

    Parameters
    ----------
    opset : int
    domains : mapping of str to int
        Versions of other operator sets.
    """

    def __init__(self, opset=21, domains=None):
        self.opsets = {"": opset, **(domains or {})}
        self.nodes, self.weights = [], []

    def constant(self, values, dtype=None) -> str:
        """Add a constant; dtypes of numpy and onnx's int4 and uint4."""
        name = f"constant{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes):
        """Add a node; returns the name of its output, or a list of them."""
        names = [f"{op}{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(op, list(inputs), names, f"{op}{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def grid(self, scale, zero_point, dtype="uint8") -> tuple[str, str]:
        """Add a scale and a zero point."""
        return self.constant(scale, np.float32), self.constant(zero_point, dtype)

    def model(self, inputs: dict, outputs: dict) -> onnx.ModelProto:
        """Return the model; inputs and outputs as ``{name: (dtype, shape)}``.

        For an output, the number of its axes will do.
        """
        infos = [
            [
                helper.make_tensor_value_info(
                    name,
                    helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
                    [None] * shape if isinstance(shape, int) else shape,
                )
                for name, (dtype, shape) in values.items()
            ]
            for values in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "test", *infos, self.weights)
        opsets = [helper.make_opsetid(*item) for item in self.opsets.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def onnx_runtime(model: onnx.ModelProto, feeds: dict) -> list[np.ndarray]:
    """Outputs of ONNX Runtime, node by node as the graph says."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return session.run(None, feeds)
