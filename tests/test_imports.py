"""One way down: every import of the package, late ones too, against the table of who may import whom."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the bottom up; each may import those that it names and nothing else of the package. ARCHITECTURE.md has the why.
NUMERICS = ("ops", "objective", "model")
ALLOWED: dict[str, tuple[str, ...]] = {
    "ops": (),
    "ranges": (),
    "side_files": (),
    "objective": ("ops", "ranges"),
    "verify": (),
    "canvas": (),
    "compilation": (),
    "model": ("ops", "side_files"),
    "data": ("side_files", "verify"),
    "rollout": ("ops", "ranges", "verify", "model", "data"),
    "probes": ("ranges",),
    "config": ("ranges", "objective", "data", "probes"),
    "policy": ("model", "config"),
    "presets": (),
    "command_line": ("objective", "config", "presets"),
    "runs": ("compilation", "model", "config", "command_line", "package"),
    "evaluate": ("ranges", "verify", "model", "data", "rollout", "probes", "config", "policy", "runs"),
    "train": (
        *NUMERICS, "canvas", "compilation", "verify", "data", "rollout", "probes", "config", "policy", "runs",
        "evaluate",
    ),
    "report": ("canvas", "objective", "config", "command_line", "runs", "evaluate", "package"),
    "viewer": ("objective", "model", "data", "config", "runs"),
    "ablate": ("canvas", "objective", "config", "presets", "command_line", "runs", "evaluate", "report"),
    # Applications: none imports another, but a preflight, which measures as an analysis does and counts as a plan.
    "analysis": (
        *NUMERICS, "canvas", "ranges", "verify", "data", "rollout", "probes", "config", "policy", "runs", "evaluate",
        "train", "report", "viewer",
    ),
    "plan": ("ops", "objective", "model", "data", "rollout", "config", "policy", "train"),
    "preflight": (
        "ops", "objective", "ranges", "verify", "model", "data", "rollout", "config", "policy", "runs", "evaluate",
        "train", "analysis", "plan",
    ),
    "sample": ("ranges", "model", "data", "rollout", "runs", "evaluate"),
    "warmup": ("verify", "model", "data", "rollout", "policy", "evaluate", "train"),
    "importing": ("model", "data"),
    "export": ("side_files", "model", "data", "config", "runs", "evaluate", "report"),
    # The commands: what an application is asked from a terminal.
    "cli": (
        "compilation", "verify", "data", "config", "presets", "command_line", "runs", "evaluate", "train", "report",
        "viewer",
        "ablate", "analysis", "preflight", "plan", "sample", "warmup", "importing", "export", "package",
    ),
    "__main__": ("cli",),
}  # fmt: skip


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    files = (root / "egrsd_jax").rglob("*.py")
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(root: Path) -> list[tuple[str, str]]:
    """(importer, imported) of every import between modules of the package."""
    known = modules(root)
    edges = []
    for name, file in known.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: a relative import; write it in full"
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [target if target in known else str(node.module) for target in targets]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            edges += [(name, target) for target in targets if target.partition(".")[0] == "egrsd_jax"]
    return edges


def package(module: str) -> str:
    """The package or top module that a module belongs to; `package` is `egrsd_jax` itself."""
    return [*module.split("."), "package"][1]


def forbidden(root: Path) -> list[str]:
    """A line per edge that the table does not have, with the file that makes it."""
    lines = {
        f"{modules(root)[importer].relative_to(root)} imports {imported}: {package(importer)} may import "
        f"{', '.join(ALLOWED.get(package(importer), ())) or 'nothing of the package'}"
        for importer, imported in imports(root)
        if package(importer) != package(imported)
        and package(importer) != "package"
        and package(imported) not in ALLOWED.get(package(importer), ())
    }
    return sorted(lines)


def test_no_import_that_the_table_does_not_have():
    assert forbidden(ROOT) == []


def test_the_table_has_one_way_down_and_no_edge_that_nobody_needs():
    below: set[str] = {"package"}
    for name, allowed in ALLOWED.items():
        assert set(allowed) <= below, f"{name} would import upwards: {sorted(set(allowed) - below)}"
        below.add(name)
    used = {(package(importer), package(imported)) for importer, imported in imports(ROOT)}
    unused = [(name, other) for name, allowed in ALLOWED.items() for other in allowed if (name, other) not in used]
    assert unused == []


def test_the_table_of_architecture_md_is_this_one():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ", text, re.MULTILINE)
    table = {name: tuple(re.findall(r"\w+", cell)) for name, cell in rows}
    expected = {
        name: tuple("egrsd_jax" if other == "package" else other for other in ALLOWED[name]) for name in ALLOWED
    }
    assert table == expected


def test_every_package_is_in_the_table():
    assert {package(module) for module in modules(ROOT)} - {"package", "assets"} == ALLOWED.keys()


def test_no_circle_of_modules():
    edges: dict[str, set[str]] = {}
    for importer, imported in imports(ROOT):
        edges.setdefault(importer, set()).add(imported)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module in done:
            return
        for other in sorted(edges.get(module, ())):
            visit(other, (*path, module))
        done.add(module)

    for module in sorted(edges):
        visit(module, ())


@pytest.mark.parametrize("late", [False, True])
def test_a_planted_upward_import_is_found_with_its_file_and_edge(tmp_path, late):
    for name in ("ops", "train"):
        (tmp_path / "egrsd_jax" / name).mkdir(parents=True)
        (tmp_path / "egrsd_jax" / name / "__init__.py").write_text("")
    (tmp_path / "egrsd_jax/train/step.py").write_text("")
    line = "from egrsd_jax.train.step import update"
    (tmp_path / "egrsd_jax/ops/masked.py").write_text(f"def late():\n    {line}\n" if late else f"{line}\n")
    (found,) = forbidden(tmp_path)
    assert "ops/masked.py imports egrsd_jax.train.step: ops may import nothing" in found
