"""The guide holds: its blocks run, its commands are ones the program knows, its links lead somewhere, and it builds.

How a page says what runs: a block fenced as ``python`` does, block by block in one namespace, in an empty folder; a
block fenced as ``console`` holds commands after ``$``, and what stands below a command is what it prints (``...`` is
anything). ``no-run`` behind the language keeps a block from running. Trainings are cut to one epoch. Indented lines
that begin with ``prism`` show forms of a command: they are parsed and not run. What a page takes for granted is in
BEFORE.
"""

import ast
import doctest
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WRITTEN = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *PAGES,
    *sorted((DOCS / "api").glob("*.md")),
]
NETWORKS = ("Forecaster", "Classifier", "Imputer", "Embedder", "UniversalModel", "PrismClassifier")
UNTRAINED = ("ridge", "seasonal_naive", "last_value", "name")  # and the loop over them
SLOW = (
    "tasks",
    "adapting",
    "language",
    "benchmark",
    "search",
    "universal",
)  # aeon compiles half a minute, others train for real


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    marks: tuple[str, ...]
    text: str
    line: int


def blocks_of(text: str) -> list[Block]:
    found = re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [Block(m[1], tuple(m[2].split()), m[3], text.count("\n", 0, m.start()) + 2) for m in found]


def runs(block: Block) -> bool:
    return block.language in ("python", "console") and "no-run" not in block.marks


class _OneEpoch(ast.NodeTransformer):
    """The same lines, but whatever trains a network does so for one epoch and without a bar."""

    def visit_Call(self, call: ast.Call) -> ast.Call:
        self.generic_visit(call)
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
        first = call.args[0] if call.args else None
        told = getattr(first, "value", None) or getattr(first, "id", None)
        given = {keyword.arg for keyword in call.keywords}
        if name in NETWORKS and told not in UNTRAINED:
            changes = {"fit_settings": {"max_epochs": 1}} | (
                {"verbose": False} if "Prism" in name else {"progress": False}
            )
            for key in changes.keys() - given:
                call.keywords.append(ast.keyword(key, ast.parse(repr(changes[key]), mode="eval").body))
        return ast.fix_missing_locations(call)


def commands_of(block: Block) -> list[tuple[str, str]]:
    """Each command after ``$``, and what the page says it prints."""
    pieces = re.split(r"^\$ (.*)\n", block.text, flags=re.MULTILINE)
    assert not pieces[0].strip(), f"line {block.line}: a console block begins with $"
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


def run_command(command: str, expected: str, monkeypatch, capsys) -> None:
    """A command ``prism ...`` in this process; its output is compared where the page tells one."""
    from prismts.cli import main

    words = shlex.split(command, comments=True)
    assert words[0] == "prism", f"only prism runs in a console block, not {words[0]!r}: mark the block no-run"
    if words[1:3] in (["fit", "forecast"], ["fit", "classify"]) and "--epochs" not in words:
        words += ["--epochs", "1"]
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", words)
        try:
            main()
        except SystemExit as end:
            assert not end.code, f"{command!r} ended with code {end.code}: {capsys.readouterr().err}"
    printed = capsys.readouterr().out
    if expected.strip():
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(expected, printed, flags), f"{command!r} prints:\n{printed}"


# ---- what a page takes for granted


def before_export(scope: dict, request) -> None:
    """A fitted estimator, and values to ask it about."""
    from prismts import Forecaster
    from prismts.data.synthetic import sine_mixture

    scope["values"] = sine_mixture().values
    scope["forecaster"] = Forecaster("ridge", context_length=96, horizon=12).fit(scope["values"])


def before_benchmark(scope: dict, request) -> None:
    """The results of a specification, with predictions kept."""
    from prismts.benchmark.runner import run_bench
    from prismts.benchmark.spec import read_spec

    request.getfixturevalue("data_root")
    spec = {"task": "forecast", "data": ["ETTh2"], "horizons": [96], "keep_predictions": True, "models": ["ridge"]}
    Path("spec.yaml").write_text(json.dumps(spec))
    run_bench(read_spec(Path("spec.yaml")), Path("results"))


def before_search(scope: dict, request) -> None:
    """A finished search of a single trial."""
    pytest.importorskip("optuna")
    from prismts.cli import app
    from prismts.data.synthetic import sine_mixture

    values = sine_mixture(400).values[0]
    Path("waves.csv").write_text("\n".join(["wave", *(f"{value:.6f}" for value in values)]))
    spec = {"data": "waves.csv", "task": "forecast", "context_length": 48, "horizon": 6, "trials": 1}
    Path("search.yaml").write_text(json.dumps(spec | {"fit": {"max_epochs": 1}}))
    with pytest.raises(SystemExit) as end:
        app(["search", "search.yaml", "--out", "runs/etth2"], exit_on_error=False, print_error=False)
    assert not end.value.code


BEFORE = {"export": before_export, "benchmark": before_benchmark, "search": before_search}


@pytest.mark.long
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page.stem in SLOW else [], id=page.stem)
        for page in PAGES
        if any(runs(block) for block in blocks_of(page.read_text(encoding="utf-8")))
    ],
)
def test_the_blocks_of_a_page_run_from_top_to_bottom(page, tmp_path, monkeypatch, capsys, request):
    monkeypatch.chdir(tmp_path)
    scope: dict = {"__name__": "__page__"}
    if page.stem in BEFORE:
        BEFORE[page.stem](scope, request)
    for block in filter(runs, blocks_of(page.read_text(encoding="utf-8"))):
        if block.language == "python":
            tree = ast.parse("\n" * (block.line - 1) + block.text, filename=str(page))
            exec(compile(_OneEpoch().visit(tree), str(page), "exec"), scope)
        else:
            for command, expected in commands_of(block):
                run_command(command, expected, monkeypatch, capsys)


def test_a_block_is_found_with_its_language_its_marks_and_its_line():
    text = "# Title\n\n```python no-run\nx = 1\n```\n\n```console\n$ prism check a.csv\na.csv: ...\n```\n"
    first, second = blocks_of(text)
    assert first == Block("python", ("no-run",), "x = 1\n", 4) and not runs(first)
    assert runs(second) and commands_of(second) == [("prism check a.csv", "a.csv: ...\n")]


def test_training_is_cut_short_and_floors_are_left_alone():
    def cut(line: str) -> str:
        return ast.unparse(_OneEpoch().visit(ast.parse(line)))

    assert "max_epochs" in cut('prismts.Forecaster("auto", horizon=3)') and "progress=False" in cut("Imputer()")
    assert cut('Forecaster("ridge")') == "Forecaster('ridge')" and "5" in cut(
        "Classifier(fit_settings={'max_epochs': 5})"
    )


# ---- commands that are shown


def shown_commands() -> list[tuple[str, str]]:
    """Page and command, of every line of a block that begins with prism (or sets a variable for it)."""
    found = []
    for page in WRITTEN:
        fenced = False
        for line in page.read_text(encoding="utf-8").splitlines():
            fenced ^= line.startswith("```")
            if fenced or line.startswith("    "):
                match = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(prism .*)", line)
                found += [(page.name, match[1])] if match else []
    return found


@pytest.mark.parametrize(("page", "command"), shown_commands(), ids=lambda word: word)
def test_a_command_that_is_shown_is_one_the_program_knows(page, command):
    from prismts.cli import app

    app.parse_args(shlex.split(command, comments=True)[1:], exit_on_error=False, print_error=False)


def test_a_command_with_an_option_that_does_not_exist_is_found():
    from cyclopts import CycloptsError

    from prismts.cli import app

    with pytest.raises(CycloptsError, match="--horizn"):
        app.parse_args(
            ["fit", "forecast", "a.csv", "--out", "m", "--horizn", "3"], exit_on_error=False, print_error=False
        )


# ---- links


def prose_of(text: str) -> str:
    """A page without its code."""
    text = re.sub(r"^(```|:::).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors_of(page: Path) -> set[str]:
    """What the headings of a page are called in an address."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_something(page):
    text = prose_of(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors_of(place), f"{page.name} links to {target}, but {place.name} has no such heading"


# ---- what has to stand somewhere


def test_every_model_floor_and_baseline_has_its_place_in_the_guide():
    from prismts.models import MODELS
    from prismts.models.case_floors import CASE_FLOORS
    from prismts.models.detectors import DETECTORS

    page = (DOCS / "models.md").read_text(encoding="utf-8")
    missing = [name for name in (*MODELS, *CASE_FLOORS, *DETECTORS) if f"`{name}`" not in page]
    assert not missing, f"docs/models.md does not name {missing}"


def test_every_public_part_of_the_package_has_its_place_in_the_reference():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    parts = {
        path.stem
        for path in (ROOT / "src" / "prismts").iterdir()
        if not path.stem.startswith("_") and path.stem != "py"
    }
    assert set(re.findall(r"\{\{ modules (\w+) \}\}", pages)) == parts - {"cli"}


def test_every_picture_is_small_and_shown():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = sorted((DOCS / "_static").iterdir())
    assert len(pictures) >= 5
    for picture in pictures:
        assert picture.stat().st_size < 100_000, f"{picture.name} is too large for the repository"
        assert f"_static/{picture.name}" in pages, f"no page shows {picture.name}"


@pytest.mark.slow  # `make test` runs it before the fast ones
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    page = (tmp_path / "site" / "api" / "estimators.html").read_text(encoding="utf-8")
    assert "prismts.estimators.forecaster.Forecaster.backtest" in page
