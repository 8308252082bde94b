"""What a .pt2 archive may say: the part of torch's own schema that describes plain tensors.

Torch builds Python from an archive: names become source text that it compiles, symbolic sizes are
evaluated, operators are looked up by their path, specifications of inputs import modules. Each of
these types therefore says what is taken; torch never reads anything else. Objects, tokens, guards
and operators as arguments have no type here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...errors import first_line
from .expressions import INT64_MAX, check_expression

Int = Annotated[int, Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
Length = Annotated[int, Meta(ge=0, lt=2**40)]
Float = float | Literal["Infinity", "-Infinity", "NaN"]
Printable = Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
# Becomes a variable of a function that torch compiles.
Identifier = Annotated[str, Meta(max_length=512, pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z")]
OptionalIdentifier = Annotated[str, Meta(max_length=512, pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?\Z")]
# Becomes a path of attributes, and a part of the source text where something isn't an identifier.
Path = Annotated[str, Meta(max_length=1024, pattern=r"^[\w./:@ -]*\Z")]
Symbol = Annotated[str, Meta(pattern=r"^[a-z]{1,8}[0-9]{1,5}\Z")]
Operator = Annotated[
    str,
    Meta(
        pattern=r"^(torch\.ops\.(aten|prims|quantized_decomposed|torchao|bitenc)\.\w{1,99}\.\w{1,99}"
        r"|torch\.ops\.higher_order\.wrap_with_set_grad_enabled"
        r"|_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|truediv|and_|or_)"
        r"|math\.trunc|torch\.sym_(not|int|float|ite|max|min))\Z"
    ),
]
CONTAINERS = Literal["builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"]


class Part(msgspec.Struct, frozen=True):
    """Keys that aren't declared, as those of a newer torch, are dropped."""


class OneOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A union of torch's: exactly one of the fields is there, and its name says which."""

    def __post_init__(self):
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not UNSET]
        if len(given) != 1:
            raise ValueError(f"holds {len(given)} of {', '.join(self.__struct_fields__)}")


class Device(Part, frozen=True):
    """Where a tensor lies."""

    type: Literal["cpu", "meta"]
    index: Annotated[int, Meta(ge=0, lt=64)] | None = None


class Hint(OneOf, frozen=True):
    """What a symbolic number was while the model was exported."""

    as_int: Int | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET


class SymExpr(Part, frozen=True):
    """A symbolic number, in the spelling of sympy's `srepr`; torch evaluates it."""

    expr_str: Annotated[str, Meta(max_length=4096)]
    hint: Hint | None = None

    def __post_init__(self):
        check_expression(self.expr_str)


class SymInt(OneOf, frozen=True):
    """A size."""

    as_expr: SymExpr | UnsetType = UNSET
    as_int: Int | UnsetType = UNSET


class SymFloat(OneOf, frozen=True):
    """A symbolic float."""

    as_expr: SymExpr | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET


class SymBool(OneOf, frozen=True):
    """A condition on sizes."""

    as_expr: SymExpr | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET


class TensorMeta(Part, frozen=True):
    """Type and layout of a tensor in the graph."""

    dtype: Annotated[int, Meta(ge=1, le=35)]
    sizes: Annotated[list[SymInt], Meta(max_length=32)]
    requires_grad: bool
    device: Device
    strides: Annotated[list[SymInt], Meta(max_length=32)]
    storage_offset: SymInt
    layout: Literal[7]  # Strided.


class IntegerName(OneOf, frozen=True):
    """A number, or the name of one that the graph computes."""

    as_name: Identifier | UnsetType = UNSET
    as_int: Int | UnsetType = UNSET


class FloatName(OneOf, frozen=True):
    """As `IntegerName`."""

    as_name: Identifier | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET


class BooleanName(OneOf, frozen=True):
    """As `IntegerName`."""

    as_name: Identifier | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET


class TensorName(Part, frozen=True):
    """The name of a tensor of the graph."""

    name: Identifier


class OptionalTensor(OneOf, frozen=True):
    """A tensor or None."""

    as_tensor: TensorName | UnsetType = UNSET
    as_none: bool | UnsetType = UNSET


class NamedGraph(Part, frozen=True):
    """The body of a context, such as `torch.no_grad`."""

    name: Identifier
    graph: Graph


class Complex(Part, frozen=True):
    """A complex number."""

    real: Float
    imag: Float


class Argument(OneOf, frozen=True):
    """An argument or result of a node: tensors and numbers, no object and no operator."""

    as_none: bool | UnsetType = UNSET
    as_tensor: TensorName | UnsetType = UNSET
    as_tensors: list[TensorName] | UnsetType = UNSET
    as_int: Int | UnsetType = UNSET
    as_ints: list[Int] | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET
    as_floats: list[Float] | UnsetType = UNSET
    as_string: Printable | UnsetType = UNSET
    as_strings: list[Printable] | UnsetType = UNSET
    as_sym_int: IntegerName | UnsetType = UNSET
    as_sym_ints: list[IntegerName] | UnsetType = UNSET
    as_scalar_type: Annotated[int, Meta(ge=1, le=35)] | UnsetType = UNSET
    as_memory_format: Annotated[int, Meta(ge=1, le=4)] | UnsetType = UNSET
    as_layout: Literal[7] | UnsetType = UNSET
    as_device: Device | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_bools: list[bool] | UnsetType = UNSET
    as_sym_bool: BooleanName | UnsetType = UNSET
    as_sym_bools: list[BooleanName] | UnsetType = UNSET
    as_graph: NamedGraph | UnsetType = UNSET
    as_optional_tensors: list[OptionalTensor] | UnsetType = UNSET
    as_optional_tensor: OptionalTensor | UnsetType = UNSET
    as_sym_float: FloatName | UnsetType = UNSET
    as_sym_floats: list[FloatName] | UnsetType = UNSET
    as_complex: Complex | UnsetType = UNSET
    as_nested_tensors: list[list[TensorName]] | UnsetType = UNSET
    as_int_lists: list[list[Int]] | UnsetType = UNSET
    as_float_lists: list[list[Float]] | UnsetType = UNSET


class NamedArgument(Part, frozen=True):
    """An argument by the name that the operator's schema gives it."""

    name: OptionalIdentifier
    arg: Argument
    kind: Literal[0, 1, 2] | None = None


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a node, the modules that it belongs to; torch looks other entries up as code."""

    nn_module_stack: Printable = ""


class Node(Part, frozen=True):
    """A call of an operator."""

    target: Operator
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: Metadata
    is_hop_single_tensor_return: bool | None = None
    name: Identifier | None = None


class Graph(Part, frozen=True):
    """The calls, and the types of all names."""

    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[Identifier, TensorMeta]
    sym_int_values: dict[Identifier, SymInt]
    sym_bool_values: dict[Identifier, SymBool]
    is_single_tensor_return: bool = False
    custom_obj_values: Annotated[dict[str, str], Meta(max_length=0)] = {}
    sym_float_values: dict[Identifier, SymFloat] = {}


class UserInput(Part, frozen=True):
    """An input of the model."""

    arg: Argument


class ParameterInput(Part, frozen=True):
    """A parameter as an input of the graph."""

    arg: TensorName
    parameter_name: Path


class BufferInput(Part, frozen=True):
    """A buffer as an input of the graph."""

    arg: TensorName
    buffer_name: Path
    persistent: bool


class ConstantTensorInput(Part, frozen=True):
    """A constant as an input of the graph."""

    arg: TensorName
    tensor_constant_name: Path


class ConstantValue(OneOf, frozen=True):
    """A plain value."""

    as_none: bool | UnsetType = UNSET
    as_int: Int | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET
    as_string: Printable | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET


class ConstantInput(Part, frozen=True):
    """An input that was no tensor when the model was exported."""

    name: Identifier
    value: ConstantValue


class InputSpec(OneOf, frozen=True):
    """What an input of the graph is."""

    user_input: UserInput | UnsetType = UNSET
    parameter: ParameterInput | UnsetType = UNSET
    buffer: BufferInput | UnsetType = UNSET
    tensor_constant: ConstantTensorInput | UnsetType = UNSET
    constant_input: ConstantInput | UnsetType = UNSET


class BufferMutation(Part, frozen=True):
    """A result that becomes a buffer."""

    arg: TensorName
    buffer_name: Path


class ParameterMutation(Part, frozen=True):
    """A result that becomes a parameter."""

    arg: TensorName
    parameter_name: Path


class InputMutation(Part, frozen=True):
    """A result that is written into an input."""

    arg: TensorName
    user_input_name: Identifier


class OutputSpec(OneOf, frozen=True):
    """What an output of the graph is."""

    user_output: UserInput | UnsetType = UNSET
    buffer_mutation: BufferMutation | UnsetType = UNSET
    parameter_mutation: ParameterMutation | UnsetType = UNSET
    user_input_mutation: InputMutation | UnsetType = UNSET


class Signature(Part, frozen=True):
    """Inputs and outputs."""

    input_specs: list[InputSpec]
    output_specs: list[OutputSpec]


class Tree(Part, frozen=True):
    """How inputs or outputs are nested: in Python's own containers, whose keys are texts."""

    type: CONTAINERS | None
    context: str | None
    children_spec: list[Tree]

    def __post_init__(self):
        if self.context is not None:
            msgspec.json.decode(self.context, type=list[str] | None)


class ModuleCallSignature(Part, frozen=True):
    """Inputs and outputs as the caller sees them."""

    inputs: list[Argument]
    outputs: list[Argument]
    in_spec: str
    out_spec: str
    forward_arg_names: list[Identifier] | None = None

    def __post_init__(self):
        for name in ("in_spec", "out_spec"):
            msgspec.structs.force_setattr(self, name, checked_tree(getattr(self, name)))


class ModuleCall(Part, frozen=True):
    """A module of the model."""

    fqn: Path
    signature: ModuleCallSignature | None = None


class GraphModule(Part, frozen=True):
    """A graph and what surrounds it."""

    graph: Graph
    signature: Signature
    module_call_graph: list[ModuleCall]


class RangeConstraint(Part, frozen=True):
    """Bounds of a symbol."""

    min_val: Int | None
    max_val: Int | None


class SchemaVersion(Part, frozen=True):
    """The schema that the archive was written with."""

    major: Literal[8]
    minor: Annotated[int, Meta(ge=0)]


class Program(Part, frozen=True):
    """``models/model.json``: an exported program, without guards, which are source text."""

    graph_module: GraphModule
    opset_version: dict[Path, Int]
    range_constraints: dict[Symbol, RangeConstraint]
    schema_version: SchemaVersion
    verifiers: list[Literal["", "ATEN", "TRAINING"]] = []
    torch_version: Printable = ""


def checked_tree(text: str) -> str:
    """Write the text of a `Tree` again, so that torch reads what was checked."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text, type=tuple[Literal[1], Tree])).decode()
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except msgspec.DecodeError as error:
        raise ValueError(first_line(error)) from None
