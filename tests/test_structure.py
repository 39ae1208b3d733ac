"""The package stands in one direction, and importing it does no work."""

import ast
import graphlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import prismts

ROOT = Path(prismts.__file__).parent
# as in the design: a part imports only parts to its left
ORDER = [
    "errors", "writing", "shapes", "ranges", "data", "windows", "cases", "layers", "models", "tasks", "training",
    "evaluation", "analysis", "estimators", "adapters", "benchmark", "report", "serving", "cli", "__main__",
]  # fmt: skip
FILES = sorted(file for file in ROOT.rglob("*.py") if file.parent != ROOT or file.stem != "__init__")


def module_of(file: Path) -> str:
    return ".".join(("prismts", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(file) for file in FILES}


def imported(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """The full names of what a module imports of this package, inside functions and from dots too."""
    package = module if is_package else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    homes = {f"prismts.{name}": f"{home}.{name}" for name, home in prismts._HOMES.items()}  # of the public names
    return {homes.get(name, name) for name in found if name.split(".")[0] == "prismts"} - {"prismts.__version__"}


def imported_by(file: Path) -> set[str]:
    return imported(file.read_text(encoding="utf-8"), module_of(file), is_package=file.stem == "__init__")


def part_of(name: str) -> str:
    return name.removeprefix("prismts.").split(".")[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_part_imports_only_parts_to_its_left(file):
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in ORDER, f"{own} is not in the order of the design"
    for name in imported_by(file):
        assert part_of(name) in ORDER, f"{file.relative_to(ROOT)} imports {name}, which is no part of the design"
        assert ORDER.index(part_of(name)) <= ORDER.index(own), (
            f"{file.relative_to(ROOT)} imports {name}, which stands to its right"
        )


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def f():\n    from prismts.training.fit import fit", "prismts.training.fit.fit"),
        ("import prismts.training.fit as f", "prismts.training.fit"),
        ("from prismts import training", "prismts.training"),
        ("from prismts import Forecaster", "prismts.estimators.forecaster.Forecaster"),
        ("import prismts", "prismts"),
        ("from . import linear", "prismts.layers.linear"),
        ("from .linear import RidgeMap", "prismts.layers.linear.RidgeMap"),
        ("from .. import training", "prismts.training"),
        ("from ..training.fit import fit", "prismts.training.fit.fit"),
    ],
)
def test_the_check_sees_every_way_to_import(source, name):
    assert imported(source, "prismts.layers.line") == {name}
    assert imported("from . import fit\nimport torch", "prismts.training", is_package=True) == {"prismts.training.fit"}


def imported_modules(file: Path) -> set[str]:
    """The modules of this package that a file names in an import: a module, or something that a module holds."""
    return {name if name in MODULES else name.rpartition(".")[0] for name in imported_by(file)} & MODULES


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


def test_every_pinned_version_installs_on_the_oldest_python_that_is_promised():
    """3.11.0: a distribution whose Python 3.11 is an early one has no later patch release."""
    pinned = {
        line.split("==")[0].replace("_", "-").lower()
        for line in (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    }
    needed = {one.metadata["Name"]: one.metadata["Requires-Python"] for one in metadata.distributions()}
    too_new = {
        name: needs
        for name, needs in needed.items()
        if needs and name.replace("_", "-").lower() in pinned and not SpecifierSet(needs).contains("3.11.0")
    }
    assert pinned and not too_new
