"""What is installed: every imported distribution is declared, in the right extra, and an installed package is whole."""

import ast
import functools
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import egrsd_jax

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "egrsd_jax"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Declared, and imported by another distribution on our behalf.
IMPORTED_BY_OTHERS = {"jinja2"}  # by transformers, for chat templates
OPTIONAL = {
    "datasets",
    "gguf",
    "wandb",
    "trackio",
}  # imported where they are asked for, with one line where they are missing
DISTRIBUTIONS = importlib.metadata.packages_distributions()


def name_of(requirement: str) -> str:
    """A requirement's distribution, spelled in one way."""
    return normalised(re.split(r"[\[<>=!~;# ]", requirement)[0])


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def distribution_of(module: str) -> str:
    """The distribution that a top-level module comes with; one that is not installed here bears its module's name."""
    names = {normalised(name) for name in DISTRIBUTIONS.get(module, [module])}
    assert len(names) == 1, f"{module} comes with {names}"
    return names.pop()


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Every module that an import names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield node.module


def third_party(modules: Iterable[str]) -> set[str]:
    """The distributions of some modules that are neither Python's nor ours."""
    tops = {module.partition(".")[0] for module in modules}
    return {distribution_of(top) for top in tops - sys.stdlib_module_names - {"egrsd_jax"}}


def on_import(module: str, done: dict[str, set[str]]) -> None:
    """Into `done`: for a module of ours and each that it imports at once, the third-party modules imported at once."""
    file = PACKAGE.parent / module.replace(".", "/")
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    if module in done or not file.is_file():
        return
    body = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = list(imported_modules(ast.Module(body, [])))
    done[module] = third_party(modules)
    for name in modules:
        if name.startswith("egrsd_jax"):
            on_import(name, done)


@functools.cache
def all_imports() -> dict[Path, list[str]]:
    """The modules that each file of the package imports, late ones too."""
    return {file: list(imported_modules(ast.parse(file.read_text(encoding="utf-8")))) for file in PACKAGE.rglob("*.py")}


BASE = {name_of(line) for line in PROJECT["dependencies"]}
PLOTS = {name_of(line) for line in EXTRAS["plots"]}


def test_every_import_is_declared_and_every_declared_distribution_is_imported():
    declared = BASE | PLOTS
    imported = {name for modules in all_imports().values() for name in third_party(modules)}
    assert imported - declared - OPTIONAL == set()
    assert declared - imported == IMPORTED_BY_OTHERS


def test_the_public_names_need_nothing_but_the_dependencies_without_extras():
    done: dict[str, set[str]] = {}
    for home in egrsd_jax._HOME_OF.values():
        on_import(f"egrsd_jax.{home}", done)
    needed = {module: names - BASE for module, names in done.items() if names - BASE}
    assert needed == {}


def test_the_package_imports_neither_tests_nor_benchmarks():
    ours = {"tests", "benchmarks", "launch", "examples"}
    tops = {file: {module.partition(".")[0] for module in modules} for file, modules in all_imports().items()}
    assert [file for file, modules in tops.items() if modules & ours] == []


def test_the_files_of_requirements_have_the_same_lines():
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    chex = [line for line in EXTRAS["test"] if line.startswith("chex")]
    assert list(filter(None, lines)) == [*PROJECT["dependencies"], *EXTRAS["plots"], *chex]
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements-test.txt").read_text().splitlines()]
    assert list(filter(None, lines)) == ["-r requirements.txt", *(line for line in EXTRAS["test"] if line not in chex)]


def test_the_metadata_has_a_licence_and_neither_authors_nor_addresses():
    assert PROJECT["license"] == "Apache-2.0"
    assert (ROOT / "LICENSE").read_text().split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert {"authors", "maintainers", "urls", "version"} & set(PROJECT) == set()


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package as pip installs it, without its dependencies, which are those of this environment."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")  # builds leave files
    for folder in ("egrsd_jax", "configs"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, f"--target={target}", str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", *arguments]
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_an_installed_package_holds_all_that_the_checkout_has(installed):
    suffixes = {".py", ".yaml", ".typed", ".js", ".css", ".html", ".json", ".safetensors"}
    ours = {file.relative_to(ROOT) for file in PACKAGE.rglob("*") if file.suffix in suffixes}
    ours |= {Path("egrsd_jax") / file.relative_to(ROOT) for file in (ROOT / "configs").rglob("*.yaml")}
    theirs = {file.relative_to(installed) for file in installed.rglob("*") if file.is_file()}
    assert ours - theirs == set()
    assert {file.parts[0] for file in theirs} <= {"egrsd_jax", f"egrsd_jax-{egrsd_jax.__version__}.dist-info", "bin"}


def test_an_installed_package_runs_its_commands_and_presets_from_any_folder(installed, tmp_path):
    done = run(installed, tmp_path, "-m", "egrsd_jax", "--version")
    assert done.stdout == f"egrsd-jax {egrsd_jax.__version__}\n"
    code = "from egrsd_jax import __file__, presets; print(presets.training_file('orders')); print(__file__)"
    done = run(installed, tmp_path, "-c", code)
    assert done.stdout.splitlines() == [
        str(installed / "egrsd_jax/configs/orders.yaml"),
        str(installed / "egrsd_jax/__init__.py"),
    ]
    done = run(installed, tmp_path, "-m", "egrsd_jax", "ablate", "orders_gate", "--list")
    assert done.returncode == 0, done.stderr
    assert "waiting" in done.stdout
    assert list(tmp_path.iterdir()) == []
