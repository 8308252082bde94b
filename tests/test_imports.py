"""The plan of the house: which file imports which, and what loading a library costs."""

import graphlib
import json
import subprocess
import sys

import pytest

import tvm_bitenc as be
from tvm_bitenc.encoding import Encoding

UNUSED = ("transform", "kernel", "tuning", "frontend", "schedule", "te", "op", "nn")
LOAD = """
import json, sys
import tvm_bitenc
lib = tvm_bitenc.load(sys.argv[1])
print(json.dumps([name for name in sys.modules if name.startswith("tvm_bitenc")]))
"""


def test_no_module_imports_itself_by_way_of_others():
    """Imports inside functions and for type checkers count as well."""
    grimp = pytest.importorskip("grimp", reason="pip install import-linter")
    graph = grimp.build_graph("tvm_bitenc", cache_dir=None)
    imported = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    order = list(graphlib.TopologicalSorter(imported).static_order())  # Raises at a circle.
    assert order.index("tvm_bitenc.errors") < order.index("tvm_bitenc.compiler")


def test_floors(capsys, monkeypatch, pytestconfig):
    """The contract of pyproject.toml: no file imports what stands above it."""
    cli = pytest.importorskip("importlinter.cli", reason="pip install import-linter")
    monkeypatch.chdir(pytestconfig.rootpath)
    assert cli.lint_imports(no_cache=True) == 0, capsys.readouterr().out


def test_loading_a_library_imports_little(random_layer, layers_module, tmp_path):
    layer = random_layer(0, Encoding.symmetric(2), Encoding.unsigned(2))
    path = be.build(layers_module([layer]), threads=1).export_library(tmp_path / "net.so")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True
    )
    modules = json.loads(done.stdout.splitlines()[-1])
    assert "tvm_bitenc.compiled" in modules and len(modules) <= 30, modules
    assert not [name for name in modules if name.split(".")[1:2] and name.split(".")[1] in UNUSED]


HELP = """
import sys
from tvm_bitenc.cli import main
sys.argv = ["bitenc", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
names = {name.split(".")[0] for name in sys.modules}
heavy = sorted(names & {"tvm", "torch", "onnx", "matplotlib"})
print("imported:", heavy)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compile", "--help"]], ids=str)
def test_help_imports_no_compiler(arguments):
    command = [sys.executable, "-c", HELP, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: []"
    assert ("bitenc 0." in done.stdout) == (arguments == ["--version"])
