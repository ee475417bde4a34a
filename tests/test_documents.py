"""Documents that name what is in the code: pages, public names, the table of imports, the checks of .ci/run."""

import re
from pathlib import Path

import yaml

import egrsd_jax

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {file.name for file in DOCS.glob("*.md")} - {"index.md"}


def test_the_index_and_the_site_have_every_page():
    assert set(re.findall(r"\]\((\w+\.md)\)", (DOCS / "index.md").read_text())) == PAGES
    assert set(re.findall(r": (\w+\.md)", (ROOT / "mkdocs.yml").read_text())) - {"index.md"} == PAGES


def test_the_api_reference_has_every_public_name():
    listed = re.findall(r"^::: egrsd_jax\.([\w.]+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(name.rpartition(".")[2] for name in listed) == sorted(egrsd_jax.__all__)


def test_every_link_between_documents_leads_to_a_file():
    for file in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", file.read_text(encoding="utf-8")):
            assert "://" in target or (file.parent / target).exists(), f"{file.name}: {target}"


def test_the_hooks_before_a_commit_are_the_checks_of_ci():
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [" ".join(hook["entry"].replace("--force-exclude", "").split()) for hook in repository["hooks"]]
    checks = re.findall(r"^\.venv/bin/(ruff \w+|pyright)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert hooks == checks
