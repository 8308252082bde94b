"""Archives as `torch.export.save` writes them, and changed so that torch would run code of theirs.

Each attack leaves a folder behind where its code runs: no test may find it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

PROGRAM, WEIGHTS, CONSTANTS = (
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)


class Marking:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


class Archive:
    """Members of an archive by name, to be changed and written.

    Parameters
    ----------
    path : Path
        Of a good archive.
    """

    def __init__(self, path: Path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            self.members = {name.partition("/")[2]: archive.read(name) for name in names}
        self.root = "net/"

    def change(self, member: str, change: Callable[[dict], object]) -> None:
        """Change a member that is JSON."""
        content = json.loads(self.members[member])
        change(content)
        self.members[member] = json.dumps(content).encode()

    def write(self, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
        """Write all members."""
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in self.members.items():
                archive.writestr(f"{self.root}{name}", content)
        return path


def good_archive(path: Path) -> Path:
    """Write a small model whose batch is dynamic."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.rand(2, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def pickled(mark: str) -> bytes:
    """Bytes that make a folder when they are unpickled."""
    return pickle.dumps(Marking(mark), protocol=2)


def saved(mark: str) -> bytes:
    """The same by torch.save."""
    buffer = io.BytesIO()
    torch.save(Marking(mark), buffer)
    return buffer.getvalue()


def code(mark: str) -> str:
    """An expression that makes a folder."""
    return f"__import__('os').mkdir({mark!r})"


def _constant(archive: Archive, name: str, content: bytes) -> None:
    entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    archive.change(CONSTANTS, lambda config: config["config"].update(c=entry))
    archive.members[f"data/constants/{name}"] = content


def opaque_object(archive: Archive, mark: str) -> None:
    """By the name that torch gives a pickled constant."""
    _constant(archive, "opaque_obj_0", pickled(mark))


def opaque_object_in_a_folder(archive: Archive, mark: str) -> None:
    """Torch looks at the path's beginning, not at the file's name."""
    _constant(archive, "opaque_obj_0/x", pickled(mark))


def opaque_object_in_capitals(archive: Archive, mark: str) -> None:
    """Torch finds members whatever their case."""
    _constant(archive, "opaque_obj_0", pickled(mark))
    archive.members["data/constants/OPAQUE_OBJ_0"] = archive.members.pop(
        "data/constants/opaque_obj_0"
    )


def bound_object(archive: Archive, mark: str) -> None:
    """A TorchScript object."""
    _constant(archive, "custom_obj_0", saved(mark))


def pickled_constant(archive: Archive, mark: str) -> None:
    """A constant tensor that says it is pickled."""
    _constant(archive, "tensor_0", saved(mark))


def pickled_weight(archive: Archive, mark: str) -> None:
    """A weight that says it is pickled."""
    archive.change(WEIGHTS, lambda c: c["config"]["0.weight"].update(use_pickle=True))
    archive.members["data/weights/weight_0"] = saved(mark)


def legacy_weights(archive: Archive, mark: str) -> None:
    """All weights in one pickle, as older versions had them."""
    archive.members["data/weights/model.pt"] = saved(mark)


def legacy_constants(archive: Archive, mark: str) -> None:
    """All constants in one pickle."""
    archive.members["data/constants/model.pt"] = saved(mark)


def older_format(archive: Archive, mark: str) -> None:
    """The archive of torch 2.7, with pickles in it."""
    program, archive.root = archive.members[PROGRAM], ""
    archive.members.clear()
    archive.members.update(
        {
            "version": b"8.20",
            "serialized_exported_program.json": program,
            "serialized_state_dict.pt": saved(mark),
            "serialized_constants.pt": saved(mark),
            "serialized_example_inputs.pt": saved(mark),
        }
    )


def sample_inputs(archive: Archive, mark: str) -> None:
    """Example inputs are pickled."""
    archive.members["data/sample_inputs/model.pt"] = saved(mark)


def size_expression(archive: Archive, mark: str) -> None:
    """Symbolic sizes are evaluated as Python."""

    def change(program: dict) -> None:
        (size,) = (s for s in _tensors(program)["input"]["sizes"] if "as_expr" in s)
        size["as_expr"]["expr_str"] = code(mark)

    archive.change(PROGRAM, change)


def size_attribute(archive: Archive, mark: str) -> None:
    """The same without a name that starts with underscores."""

    def change(program: dict) -> None:
        (size,) = (s for s in _tensors(program)["input"]["sizes"] if "as_expr" in s)
        size["as_expr"]["expr_str"] = f"Symbol('s0').func.mro()[-1] or os.mkdir({mark!r})"

    archive.change(PROGRAM, change)


def size_string(archive: Archive, mark: str) -> None:
    """Code inside of a text, which sympy evaluates in turn."""

    def change(program: dict) -> None:
        (size,) = (s for s in _tensors(program)["input"]["sizes"] if "as_expr" in s)
        size["as_expr"]["expr_str"] = f"Integer(0) + Add({code(mark)!r}, 1)"

    archive.change(PROGRAM, change)


def node_name(archive: Archive, mark: str) -> None:
    """Names become source text, which is compiled and run."""

    def change(program: dict) -> None:
        name = f"input=({code(mark)})"
        graph = program["graph_module"]["graph"]
        graph["inputs"][-1]["as_tensor"]["name"] = name
        graph["nodes"][0]["inputs"][0]["arg"]["as_tensor"]["name"] = name
        graph["tensor_values"][name] = graph["tensor_values"].pop("input")
        specs = program["graph_module"]["signature"]["input_specs"]
        specs[-1]["user_input"]["arg"]["as_tensor"]["name"] = name

    archive.change(PROGRAM, change)


def _call(archive: Archive, target: str, *inputs: dict) -> None:
    """Put a call of a function in front, whose result is a parameter of the next."""

    def change(program: dict) -> None:
        graph = program["graph_module"]["graph"]
        node = dict(graph["nodes"][0], target=target, name="first")
        node["inputs"] = [{"name": "", "arg": arg, "kind": 1} for arg in inputs]
        node["outputs"] = [{"as_tensor": {"name": "first"}}]
        graph["nodes"].insert(0, node)
        graph["tensor_values"]["first"] = graph["tensor_values"]["p_0_bias"]
        graph["nodes"][1]["inputs"][2]["arg"]["as_tensor"]["name"] = "first"

    archive.change(PROGRAM, change)


def function_of_a_module(archive: Archive, mark: str) -> None:
    """Torch imports os: `torch.os.mkdir` is a function like others."""
    _call(archive, "torch.os.mkdir", {"as_string": mark})


def function_of_torch(archive: Archive, mark: str) -> None:
    """Functions of torch read files."""
    archive.members["extra/evil"] = saved(mark)
    path = Path(mark).with_name("evil.pickle")
    path.write_bytes(saved(mark))
    _call(archive, "torch.serialization.load", {"as_string": str(path)})


def function_of_the_operator_module(archive: Archive, mark: str) -> None:
    """`operator.call` calls what it is given."""
    operator = {"as_operator": "torch.os.mkdir"}
    _call(archive, "_operator.call", operator, {"as_string": mark})


def library_of_operators(archive: Archive, mark: str) -> None:
    """A function beside the operators, not an operator: it loads a shared library."""
    _call(archive, "torch.ops.load_library", {"as_string": str(Path(mark).with_name("x.so"))})


def operator_that_opens_a_file(archive: Archive, mark: str) -> None:
    """`aten.from_file` makes a file where it is told to."""

    def change(program: dict) -> None:
        (first, *_) = program["graph_module"]["graph"]["nodes"]
        first["inputs"] = [
            {"name": "filename", "arg": {"as_string": mark}, "kind": 1},
            {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
            {"name": "size", "arg": {"as_int": 4}, "kind": 1},
        ]

    _call(archive, "torch.ops.aten.from_file.default")
    archive.change(PROGRAM, change)


def registered_extension(archive: Archive, mark: str) -> None:
    """Whatever was registered to read operators of another kind."""
    _call(archive, "#evil:operator", {"as_string": mark})


def guard(archive: Archive, mark: str) -> None:
    """Guards are source text; they are left out."""
    archive.change(PROGRAM, lambda program: program.update(guards_code=[code(mark)]))


def _spec(archive: Archive, mark: str, kind: str, context: object) -> None:
    """A specification of inputs that imports a module of the attacker's."""
    folder = Path(mark).parent
    (folder / "evil_module.py").write_text(f"import os\nos.mkdir({mark!r})\n")

    def change(program: dict) -> None:
        root = program["graph_module"]["module_call_graph"][0]["signature"]
        number, spec = json.loads(root["out_spec"])
        spec = {"type": kind, "context": context, "children_spec": [spec]}
        root["out_spec"] = json.dumps([number, spec])

    archive.change(PROGRAM, change)


def specification_with_an_enumeration(archive: Archive, mark: str) -> None:
    """Keys of a dictionary may be members of an enumeration, whose module is imported."""
    key = {"__enum__": True, "fqn": "evil_module:Evil", "name": "x"}
    _spec(archive, mark, "builtins.dict", json.dumps([key]))


def specification_with_a_factory(archive: Archive, mark: str) -> None:
    """A defaultdict names the function that makes its values."""
    context = {"default_factory_module": "evil_module", "default_factory_name": "x",
               "dict_context": []}  # fmt: skip
    _spec(archive, mark, "collections.defaultdict", context)


def compiled_library(archive: Archive, mark: str) -> None:
    """A shared library of AOTInductor's, which is loaded."""
    archive.members["data/aotinductor/model/model.so"] = b"\x7fELF"
    archive.members["data/aotinductor/model/model_metadata.json"] = b'{"AOTI_DEVICE_KEY": "cpu"}'


def second_model(archive: Archive, mark: str) -> None:
    """Torch reads every model of an archive."""
    archive.members["models/other.json"] = archive.members[PROGRAM]
    archive.members["data/weights/other.pt"] = saved(mark)
    archive.members["data/constants/other.pt"] = saved(mark)
    archive.members["data/sample_inputs/other.pt"] = b""


def parameter_name(archive: Archive, mark: str) -> None:
    """Paths of parameters become source text where they aren't identifiers."""
    evil = f'weight" + {code(mark)} + "'

    def change(program: dict) -> None:
        spec = program["graph_module"]["signature"]["input_specs"][0]
        spec["parameter"]["parameter_name"] = evil

    archive.change(PROGRAM, change)
    archive.change(WEIGHTS, lambda c: c["config"].update({evil: c["config"].pop("0.weight")}))


def traversal(archive: Archive, mark: str) -> None:
    """A member outside of the archive's folder, named by the configuration."""
    archive.change(WEIGHTS, lambda c: c["config"]["0.weight"].update(path_name="../x"))
    archive.members["data/x"] = archive.members["data/weights/weight_0"]


def _tensors(program: dict) -> dict:
    return program["graph_module"]["graph"]["tensor_values"]


ATTACKS = (
    opaque_object,
    opaque_object_in_a_folder,
    opaque_object_in_capitals,
    bound_object,
    pickled_constant,
    pickled_weight,
    legacy_weights,
    legacy_constants,
    older_format,
    size_expression,
    size_attribute,
    size_string,
    node_name,
    function_of_a_module,
    function_of_torch,
    function_of_the_operator_module,
    library_of_operators,
    operator_that_opens_a_file,
    registered_extension,
    specification_with_an_enumeration,
    specification_with_a_factory,
    compiled_library,
    second_model,
    parameter_name,
    traversal,
)
# These are left out; what remains is a good model.
IGNORED = (sample_inputs, guard)
