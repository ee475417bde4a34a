"""Documents that name what is in the code: pages, public names, the table of imports, the checks of .ci/run."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

import egrsd_jax
from egrsd_jax.command_line import field_types, parse_config

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


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def options(words: list[str]) -> Iterator[str]:
    """Options of a training with their values, in which variables stand for what is the reader's."""
    words = [word.strip('"') for word in words]
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            yield f"{word}={value.replace('$PORT', '8000')}"


def test_the_scripts_of_the_cluster_page_are_scripts_with_options_that_exist():
    trainings = []
    for script in blocks("cluster.md", "bash"):
        assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
        commands = re.findall(r"egrsd train (.*?)(?: &)?$", script.replace("\\\n", ""), re.MULTILINE)
        trainings += [[*options(command.split())] for command in commands]
    for file in blocks("cluster.md", "yaml"):
        for content in yaml.safe_load_all(file):
            for container in content["spec"].get("template", {}).get("spec", {}).get("containers", []):
                assert container["command"][:2] == ["egrsd", "train"]
                trainings.append([*options(container["command"][2:])])
    assert len(trainings) == 3
    for training in trainings:
        config = parse_config(training, program="train", description=None)
        assert config.run.grace > 25
    page = (DOCS / "cluster.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--(\w+\.\w+)", page))
    assert named <= set(field_types())
