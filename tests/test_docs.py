"""What README.md and docs/ name exists: files, launchers, metrics of the glossary; links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

from egrsd_jax.objective.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ROOTS = (ROOT, ROOT / "egrsd_jax", ROOT / "configs", ROOT / "configs" / "ablate", ROOT / "launch")
MADE_BY_COMMANDS = {"merges.txt", "problems.jsonl", "prompts.jsonl"}  # what a command writes or a user brings


def ids(page: Path) -> str:
    """The page's name in a test's name."""
    return str(page.relative_to(ROOT))


def named_files(text: str) -> set[str]:
    """Paths of the project's sources in backticks, and files that commands in code blocks are given."""
    code = re.findall(r"`([\w./-]+/?)`", text)
    commands = re.findall(r"(?:^|\s)((?:launch|benchmarks|configs|examples|tests|docs|egrsd_jax)/[\w./-]+)", text)
    return {
        name
        for name in (*code, *commands)
        if re.fullmatch(r"[\w./-]+\.(?:py|yaml)|(?:[\w-]+/)*[a-z][\w-]*/", name) and not name.startswith("runs/")
    }


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_file_and_folder_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    written_by_runs = {"config.yaml", "analysis/", "checkpoints/", "tensorboard/", "report/", "runs/"}
    missing = [
        name
        for name in sorted(named_files(text) - written_by_runs)
        if not any((root / name).exists() for root in ROOTS)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_of_a_page_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_metric_of_the_glossary_is_one_that_a_run_logs():
    metrics = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")))
    for row in re.findall(r"^\|.*\|$", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE):
        for name in re.findall(r"`(\w+)`", row.rsplit("|", 2)[1]):
            assert name in metrics, f"{name} is no column of metrics.jsonl"


def test_the_example_of_a_clip_prints_what_the_page_says(capsys, tmp_path):
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    runpy.run_path(str(tmp_path / "example.py"))
    printed = capsys.readouterr().out.replace("-0.0]", "0.0]").splitlines()
    assert len(printed) == 2
    assert len([line for line in example.splitlines() if line]) <= 10
    assert all(f"`{line}`" in page for line in printed), printed


def test_every_launcher_is_named_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in (ROOT / "launch").glob("*.py") if f"`{file.name}`" not in readme] == []


def test_every_method_is_named_in_the_readme_and_the_methods_page():
    for page in (ROOT / "README.md", ROOT / "docs" / "methods.md"):
        text = page.read_text(encoding="utf-8")
        assert [name for name in METHODS if f"`{name}`" not in text and f"--method.name {name}`" not in text] == [], (
            page
        )
