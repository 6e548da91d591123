"""The shape of the package: who may import whom, and how large things may get."""

import ast
import io
import statistics
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mstar_pl"
LEVELS = [
    {"types"},
    {"distributed", "metrics", "data"},
    {"models"},
    {"rewards"},  # the process reward holds a model
    {"rollouts"},  # an engine takes the adapter of a model
    {"modules", "loops"},
    {"callbacks", "evaluation"},
    {"parity"},
    {"cli", "commands", "__main__"},
]
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}
ENTRY_POINTS = LEVELS[-1]

# What reads the field's data and follows its scoring rules grows with their number.
FORMATS = ("data/tables.py", "data/arrow_tables.py", "data/elements.py", "data/sources/")
FORMATS += ("rewards/official/", "evaluation/benchmarks/")
FORMATS += ("evaluation/comparison", "evaluation/paper.py")  # the tables that the paper has laid down
FORMATS += ("data/publish.py", "data/cards.py", "data/recipe.py", "models/publish.py")  # what others read

# Models, too: what is particular to a family grows with their number. `models/lmm.py` is what they share.
FAMILIES = ("models/families", "models/phi3_v", "models/minicpmv", "models/internvl2")
FAMILIES += (
    "models/checkpoint_files.py",
    "models/processor_options.py",
    "models/registration.py",
    "parity/",
    "commands/check_lmm.py",
    "commands/convert.py",
)

SOURCES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in SOURCES]


def part_of(path: Path) -> str:
    """The module or package directly under mstar_pl that a file belongs to ("__init__" for the root)."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[str]:
    """Yield the absolute dotted name of everything a file imports, at any depth, lazy imports included."""
    package = ("mstar_pl", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield name and length in lines (signature and docstring included) of every function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.relative_to(PACKAGE)}:{node.name}", node.end_lineno - node.lineno + 1


def num_lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def num_code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text()
    described: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            described |= set(range(node.lineno, node.end_lineno + 1))
    layout = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - described)


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_imports_go_down(path):
    part = part_of(path)
    used = {name.split(".")[1] for name in imports_of(path) if name.startswith("mstar_pl.")} - {part}
    if part == "__init__":
        assert not used, "importing mstar_pl must import nothing else"
        return
    assert part in LEVEL_OF, f"{part} has no level: add it to LEVELS"
    assert used <= LEVEL_OF.keys(), f"import the parts of mstar_pl by name, not {used - LEVEL_OF.keys()}"
    allowed = ENTRY_POINTS if part in ENTRY_POINTS else set()
    upward = {other for other in used - allowed if LEVEL_OF[other] >= LEVEL_OF[part]}
    assert not upward, f"{part} (level {LEVEL_OF[part]}) must not import {upward}"


def test_vllm_is_imported_in_two_files():
    """The engine, and what its workers import in processes of their own, which is to be light."""
    importers = {
        name
        for path, name in zip(SOURCES, IDS, strict=True)
        if "vllm" in {imported.split(".")[0] for imported in imports_of(path)}
    }
    assert importers <= {"rollouts/vllm_engine.py", "rollouts/weight_receiver.py"}


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_protected_lightning_names_stay_in_loops(path):
    """Names with a leading underscore, and Lightning's loop modules, are imported in mstar_pl/loops only."""
    if part_of(path) == "loops":
        return
    lightning = [
        name for name in imports_of(path) if name.split(".")[0] in ("lightning", "pytorch_lightning")
    ]
    protected = [name for name in lightning if "._" in name or ".pytorch.loops." in name]
    assert not protected


@pytest.mark.parametrize("module", ["torch", "vllm", "transformers", "lightning"])
def test_types_are_light(module):
    script = f"import sys, mstar_pl.types; sys.exit({module!r} in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=PACKAGE.parent, check=False)
    assert run.returncode == 0, f"importing mstar_pl.types imports {module}"


def test_no_vague_names():
    vague = ("utils", "helpers", "manager")
    assert not [name for name in IDS if any(word in Path(name).stem.lower() for word in vague)]
    classes = [
        node.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert not [name for name in classes if name.endswith(("Manager", "Helper", "Utils"))]


def test_files_stay_small():
    lengths = {name: num_lines(path) for path, name in zip(SOURCES, IDS, strict=True)}
    assert {name: length for name, length in lengths.items() if length > 350} == {}
    assert statistics.median(lengths.values()) <= 150
    code = {name: num_code_lines(path) for path, name in zip(SOURCES, IDS, strict=True)}
    # What is counted apart, and why: docs/experiments.md.
    rooms = {name: name.split("/")[0] for name in code} | {
        name: "minivista" for name in code if name.startswith("data/minivista/")
    }
    rooms |= {name: "formats" for name in code if name.startswith(FORMATS)}
    rooms |= {name: "families" for name in code if name.startswith(FAMILIES)}
    lines = Counter[str]()
    for name, room in rooms.items():
        lines[room] += code[name]
    tools = sum(lines.pop(room) for room in ("evaluation", "commands", "cli.py", "__main__.py"))
    assert lines.pop("minivista") <= 1400
    assert lines.pop("formats") <= 2600
    assert lines.pop("families") <= 2200
    assert tools <= 2050
    assert lines.total() <= 7000


def test_functions_stay_small():
    functions = [function for path in SOURCES for function in functions_of(path)]
    assert [function for function in functions if function[1] > 80] == []
    assert statistics.median(length for _, length in functions) <= 15
