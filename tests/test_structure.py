"""The package stands in one direction, and importing it does no work."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import prismts

ROOT = Path(prismts.__file__).parent
# as in the design: a part imports only parts to its left
ORDER = [
    "errors", "writing", "shapes", "ranges", "data", "windows", "cases", "layers", "models", "tasks", "training",
    "evaluation", "analysis", "estimators", "adapters", "benchmark", "report", "serving", "cli", "__main__",
]  # fmt: skip
FILES = sorted(file for file in ROOT.rglob("*.py") if file.parent != ROOT or file.stem != "__init__")


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imported_parts(file: Path) -> set[str]:
    """The parts of this package that a file names in an import, those inside functions too."""
    parts = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("prismts."):
            parts.add(part_of(node.module))
        elif isinstance(node, ast.Import):
            parts |= {part_of(alias.name) for alias in node.names if alias.name.startswith("prismts.")}
    return parts


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_part_imports_only_parts_to_its_left(file):
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in ORDER, f"{own} is not in the order of the design"
    for other in imported_parts(file):
        assert ORDER.index(other) <= ORDER.index(own), (
            f"{file.relative_to(ROOT)} imports {other}, which stands to its right"
        )


def test_the_check_sees_an_import_in_the_wrong_direction(tmp_path):
    file = tmp_path / "layer.py"
    file.write_text("def f():\n    from prismts.training.fit import fit\n")
    assert imported_parts(file) == {"training"}


def module_of(file: Path) -> str:
    return ".".join(("prismts", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def imported_modules(file: Path) -> set[str]:
    """The modules of this package that a file names in an import."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("prismts."):
            for alias in node.names:  # a module of a package, or something that a module holds
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return found


MODULES = {module_of(file) for file in FILES}


def test_no_files_import_each_other_in_a_loop():
    graph = {module_of(file): imported_modules(file) for file in FILES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(graph)  # CycleError names a loop
    loop = graph | {"prismts.errors": {"prismts.cli.app"}}
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter(loop).static_order())


def test_importing_the_package_loads_neither_torch_nor_pandas_nor_lightning():
    heavy = ("torch", "pandas", "lightning", "sklearn", "plotly")
    code = f"import sys, prismts; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_had():
    for name in prismts.__all__:
        assert getattr(prismts, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Forcaster'"):
        _ = prismts.Forcaster


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").exists()
