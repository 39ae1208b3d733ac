"""How the guide becomes a site: ``make docs``, or ``sphinx-build -W -q -b html docs site``.

Docstrings here are plain text with ``code`` in it. What reStructuredText would take for markup in them - stars, bars,
names that end in an underscore - is escaped before it is read. A page of ``docs/api`` holds a line ``{{ modules PART
}}``, which becomes the public names of every module of that part, so that no module is forgotten.
"""

import ast
import re
from pathlib import Path
from typing import Any

from prismts import __version__

project = "PrismTS"
author = "PrismTS developers"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "pictures.py"]
highlight_language = "text"  # of blocks that name no language: most are commands

html_theme = "furo"
html_title = f"PrismTS {version}"
html_static_path = ["_static"]
html_show_copyright = False
html_copy_source = False

myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # a short name such as Event may be at home in two modules

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

PACKAGE = Path(__file__).parents[1] / "src" / "prismts"
_LITERAL = re.compile(r"(``.*?``|:\w+:`[^`]*`)")


def modules_of(part: str) -> list[Path]:
    """The files of a part of the package, which is a folder or a single file; programs for a GPU are left out."""
    single = PACKAGE / f"{part}.py"
    files = [single] if single.exists() else sorted((PACKAGE / part).glob("*.py"))
    return [file for file in files if not file.stem.endswith("_kernels")]


def foreign_names(file: Path) -> list[str]:
    """Names that a module hands on in ``__all__`` without defining them: they are described where they are at home."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    return sorted(imported)


def module_name(file: Path) -> str:
    """``prismts.models.ridge`` of its file."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("prismts", *parts)).removesuffix(".__init__")


def reference(part: str) -> str:
    """What a page of the reference says of a part: a heading and the public names of each of its modules."""
    lines = []
    for file in modules_of(part):
        name = module_name(file)
        lines += [f"## {name}", "", "```{eval-rst}", f".. automodule:: {name}"]
        if foreign := foreign_names(file):
            lines.append(f"   :exclude-members: {', '.join(foreign)}")
        lines += ["```", ""]
    return "\n".join(lines)


def fill_in_modules(app: Any, docname: str, source: list[str]) -> None:
    """Replace ``{{ modules PART }}`` on a page of the reference."""
    if docname.startswith("api/"):
        source[0] = re.sub(r"^\{\{ modules (\w+) \}\}$", lambda m: reference(m[1]), source[0], flags=re.MULTILINE)


def escape_markup(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Stars and bars of a docstring are themselves, and an indented paragraph is code, before napoleon reads it."""
    made: list[str] = []
    in_code = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not in_code and made and not made[-1].strip():
            made += [] if len(made) > 1 and made[-2].endswith("::") else ["::", ""]
            in_code = True
        elif line.strip() and not indented:
            in_code = False
        made.append(line if in_code else _outside_literals(line, r"[*|]", r"\\\g<0>"))
    lines[:] = made


def escape_names(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A name like ``scaler_`` is no link, after napoleon has read the docstring."""
    lines[:] = [
        line if line.lstrip().startswith(("..", ":")) else _outside_literals(line, r"(?<=\w)(?<!\\)_(?!\w)", r"\\_")
        for line in lines
    ]


def skip_generated(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn adds to every estimator: set_fit_request and its kin."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def _outside_literals(line: str, pattern: str, replacement: str) -> str:
    pieces = _LITERAL.split(line)
    pieces[::2] = [re.sub(pattern, replacement, piece) for piece in pieces[::2]]
    return "".join(pieces)


def setup(app: Any) -> None:
    """Hang the functions above into the build."""
    app.connect("source-read", fill_in_modules)
    app.connect("autodoc-process-docstring", escape_markup, priority=400)
    app.connect("autodoc-process-docstring", escape_names, priority=600)
    app.connect("autodoc-skip-member", skip_generated)
