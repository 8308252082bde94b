"""TVM's frame of an importer, with converters and checks that leave nothing to trust."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import tvm
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from tvm import relax
from tvm.ir import Expr
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from ...errors import UnsupportedError
from .checks import check_result, dtype_of
from .constants import constant_values, foldable
from .names import base_name, layer_name, where_of
from .node_call import NodeCall, array_of, constant
from .operators import OPERATORS
from .sizes import Sizes

# Conditions that torch.export notes about sizes; the compiled model checks its own.
CONDITIONS = ("_assert_scalar", "sym_constrain_range_for_size", "_assert_tensor_metadata")
OPERATORS_PAGE = "docs/operators-torch.md"


class NamingBuilder:
    """A block builder that names the variables it emits after the layer at hand.

    Parameters
    ----------
    builder : relax.BlockBuilder
        Does all the work.
    """

    def __init__(self, builder: relax.BlockBuilder):
        self._builder = builder
        self.layer = ""

    def emit(self, expr: relax.Expr, name_hint: str = "") -> relax.Var:
        """Emit as the builder does, under the path of the layer if there is one."""
        if name_hint or not self.layer:
            return self._builder.emit(expr, name_hint)
        expr = self._builder.normalize(expr)
        if isinstance(expr, relax.Var):
            return expr
        # A hint would have its dots replaced and digits added.
        kind = relax.DataflowVar if self._builder.current_block_is_dataflow() else relax.Var
        var = kind(self.layer, expr.ty)
        self._builder.emit_normalized(relax.VarBinding(var, expr))
        return var

    def __getattr__(self, name: str):
        return getattr(self._builder, name)


class Importer(ExportedProgramImporter):
    """Import one program, decomposed already.

    Parameters
    ----------
    program : ExportedProgram

    Attributes
    ----------
    values : dict of Node to object
        What `constant_values` found; converters read scales and zero points from it.
    sizes : Sizes
        Relax's expressions of torch's sizes.
    """

    def __init__(self, program: ExportedProgram):
        self.program = program
        self.values = constant_values(program)
        self.sizes = Sizes()
        self._folded = foldable(self.values)
        super().__init__()

    def imported(self) -> tvm.IRModule:
        """Return the module, with all parameters bound in.

        Raises
        ------
        UnsupportedError
            If an operator or one of its arguments isn't taken, or the program changes one of its
            buffers, as observers and training do.
        """
        mod = self.from_exported_program(self.program, False, False, False, None)
        changing = sorted(set(self.program.graph_signature.buffers_to_mutate.values()))
        if changing:
            raise UnsupportedError(
                f"from_torch: buffers {', '.join(changing)}",
                "change with every run",
                "Call model.eval(), and switch off whatever observes or counts",
            )
        return mod

    @property
    def block_builder(self) -> NamingBuilder | None:
        """The builder, which names what it emits."""
        return self._block_builder

    @block_builder.setter
    def block_builder(self, builder: relax.BlockBuilder | None) -> None:
        self._block_builder: NamingBuilder | None = (
            None if builder is None else NamingBuilder(builder)
        )

    @property
    def _builder(self) -> NamingBuilder:
        assert self._block_builder is not None  # It is there while a program is walked.
        return self._block_builder

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Emit a binding, named after the layer at hand."""
        return self._builder.emit(expr)

    def create_convert_map(self) -> dict[str, Callable]:
        """TVM's converters aren't used; see `operators`."""
        return {}

    def create_input_vars(self, exported_program: ExportedProgram) -> tuple:
        """Create variables as TVM does, and note what stands for torch's symbols."""
        parameters, inputs, ranges = super().create_input_vars(exported_program)
        for node in exported_program.graph.find_nodes(op="placeholder"):
            if node.name in inputs:
                self.sizes.learn(node.meta["val"].shape, inputs[node.name].ty.shape)
        return parameters, inputs, ranges

    @staticmethod
    def _convert_pytorch_tensor_to_tvm(tensor_value: torch.Tensor) -> tvm.runtime.Tensor:
        # DLPack would drop the bits that say "negated" and "conjugated".
        return tvm.runtime.tensor(array_of(tensor_value))

    def _check_unsupported_func_type(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            name = _name(node)
            if node.op == "call_function" and not self._is_taken(node, name):
                raise UnsupportedError(
                    where_of(node),
                    "is no operator that is taken" + _variant(node),
                    f"Use others; {OPERATORS_PAGE} lists them",
                )

    def _is_taken(self, node: Node, name: str) -> bool:
        if node.target is operator.getitem or node in self._folded or name in OPERATORS:
            return True
        return base_name(node) in CONDITIONS or not _is_tensors(node.meta.get("val"))

    def _translate_fx_graph(
        self,
        _graph_module: GraphModule,
        nodes: Sequence[Node],
        inputs_vars: Mapping[str, relax.Var],
        _custom_ops: object = None,
    ) -> tuple:
        for node in nodes:
            if node.op == "placeholder":
                self.env[node] = inputs_vars.get(node.name)
            elif node.op == "output":
                return self._flatten_output_args(self.retrieve_args(node)[0])
            elif node.op == "call_function":
                self.env[node] = self._converted(node)
            else:
                raise UnsupportedError(where_of(node), "is no operator", "Use operators of torch")
        raise UnsupportedError("from_torch", "the program has no output", "Return a tensor")

    def _converted(self, node: Node) -> Any:
        if node.target is operator.getitem:
            return _field(node, self.env[node.args[0]])
        if node in self._folded:
            return constant(self._folded[node])
        if base_name(node) in CONDITIONS:
            return None
        value = node.meta.get("val")
        if not _is_tensors(value):
            return _number(node, value, self.sizes)
        self._builder.layer = layer_name(node)
        call = NodeCall(node, self)
        result = self._empty(call)
        if result is None:
            result = OPERATORS[_name(node)](call)
        unread = call.unread()
        if unread:
            given = ", ".join(f"{name}={call.graph_value(name)}" for name in unread)
            call.refuse(f"isn't taken with {given}", f"Leave {' and '.join(unread)} out")
        check_result(node, result, self.sizes)
        return result

    def _empty(self, call: NodeCall) -> tuple | None:
        """Results without elements, which are an empty operand in other shapes and dtypes."""
        value = call.node.meta["val"]
        fakes = value if isinstance(value, (list, tuple)) else [value]
        sources = [n for n in call.node.all_input_nodes if _is_empty(n.meta.get("val"))]
        if not sources or not all(map(_is_empty, fakes)):
            return None
        call.read()
        x = self.env[sources[0]]
        results = [
            call.cast(self._emit_torch_reshape(x, self.sizes.shape(f)), dtype_of(f, call.where))
            for f in fakes
        ]
        return tuple(results) if isinstance(value, (list, tuple)) else results[0]

    def value(self, argument: object) -> Any:
        """Value of a node's argument that is a number or constant; None for any other tensor."""
        if isinstance(argument, Node):
            return self.values.get(argument)
        return argument

    @staticmethod
    def _flatten_output_args(output_args: object) -> tuple[relax.Expr, ...]:
        """Return the tensors among the outputs; a model may return None beside them."""
        outputs = [value for value in _leaves(output_args) if value is not None]
        if not outputs:
            raise UnsupportedError("from_torch", "the model returns no tensor", "Return a tensor")
        for value in outputs:
            if not isinstance(getattr(value, "ty", None), relax.TensorType):
                raise UnsupportedError(
                    "from_torch", f"the model returns the number {value}", "Return tensors"
                )
        return tuple(outputs)


def _name(node: Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def _variant(node: Node) -> str:
    others = [name for name in OPERATORS if name.split(".")[0] == base_name(node)]
    return f" in this variant ({_name(node)}; {', '.join(others)} are)" if others else ""


def _field(node: Node, results: Any) -> Any:
    """One of several results."""
    result = results[node.args[1]]
    if result is None and _is_tensors(node.meta.get("val")):
        raise UnsupportedError(
            where_of(node.all_input_nodes[0]),
            f"has its result {node.args[1]} read",
            "Use the others alone",
        )
    return result


def _is_empty(value: object) -> bool:
    """Whether a tensor of fixed sizes has no elements."""
    return isinstance(value, torch.Tensor) and all(map(_is_fixed, value.shape)) and 0 in value.shape


def _is_fixed(size: object) -> bool:
    return isinstance(size, int)


def _is_tensors(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_tensors, value))
    return isinstance(value, torch.Tensor)


def _number(node: Node, value: object, sizes: Sizes) -> int | float | Expr | None:
    if isinstance(value, (torch.SymInt, int)) and not isinstance(value, bool):
        return sizes(value)
    if isinstance(value, (torch.SymBool, bool)):
        return None  # Read by conditions alone.
    if isinstance(value, float):
        return value
    raise UnsupportedError(
        where_of(node), "computes a number from the inputs' sizes or values", "Use tensors"
    )


def _leaves(value: object) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]
