"""TVM's importer of exported programs, with names of layers and constants that torch computed."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from torch.export import ExportedProgram
from torch.fx import Node
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from ...errors import UnsupportedError
from .constants import constant_values, foldable
from .converters import CONVERTERS
from .names import layer_name


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
    """

    def __init__(self, program: ExportedProgram):
        self.program = program
        self.values = constant_values(program)
        self._folded = foldable(self.values)
        super().__init__()

    def imported(self) -> tvm.IRModule:
        """Return the module, with all parameters bound in.

        Raises
        ------
        UnsupportedError
            If the program changes one of its buffers, as observers and training do.
        """
        mod = self.from_exported_program(self.program, False, False, False, CONVERTERS)
        changing = sorted(set(self.program.graph_signature.buffers_to_mutate.values()))
        if changing:
            raise UnsupportedError(
                f"from_torch: buffers {', '.join(changing)}",
                "change with every run",
                "Call model.eval(), and switch off whatever observes or counts",
            )
        return mod

    @property
    def block_builder(self) -> relax.BlockBuilder | None:
        """The builder, which names what it emits."""
        return self._block_builder

    @block_builder.setter
    def block_builder(self, builder: relax.BlockBuilder | None) -> None:
        self._block_builder = None if builder is None else NamingBuilder(builder)

    def update_convert_map(self, custom_convert_map: dict[str, Callable]) -> None:
        """Add converters, and make all of them name layers and take constants from torch."""
        super().update_convert_map(custom_convert_map)
        self.convert_map = {
            name: self._named(convert) if callable(convert) else convert
            for name, convert in self.convert_map.items()
        }

    def _named(self, convert: Callable) -> Callable:
        def convert_named(node: Node, *importer) -> relax.Expr:
            if node in self._folded:
                return relax.const(self._folded[node].detach().contiguous().numpy())
            self.block_builder.layer = layer_name(node)
            return convert(node, *importer)

        return convert_named

    def value(self, argument) -> object:
        """Value of a node's argument that is a number or constant; None for any other tensor."""
        if isinstance(argument, Node):
            return self.values.get(argument)
        return argument
