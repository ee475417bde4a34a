"""A file of completions, one per line as each ends, and next to it the settings they were sampled with. No jax."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from egrsd_jax.runs.files import check_settings, read_settings, write_json
from egrsd_jax.runs.lock import held
from egrsd_jax.runs.rows import append_rows, heal


class CompletionsFile:
    """A .jsonl file that an interrupted command resumes.

    Raises ValueError in `bind`: completions sampled with other settings, a file that is not one of these.
    """

    def __init__(self, path: Path):
        self.path = path
        self._regime = path.with_name(path.name + ".settings.json")
        self.notes: list[str] = []  # what `bind` found damaged

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other processes from adding to the file within a block. Raises Locked, one line, where one does."""
        return held(self.path.parent, f".{self.path.name}.lock", what=self.path)

    def bind(self, regime: dict[str, Any]) -> set[tuple[str, int]]:
        """Writes what the completions depend on; returns the prompt's id and number of those that are there already.

        Of a regime everything counts but `free`.
        """
        if self.path.exists():
            if not self._regime.is_file():
                raise ValueError(
                    f"{self.path} is there, and {self._regime.name}, which has the settings it was sampled with, is "
                    "not; nothing is overwritten: give another file with --to"
                )
            check_settings(f"the completions in {self.path}", read_settings(self._regime), regime)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._regime, regime, indent=1)
        healed = heal(self.path, ("id", "sample", "text"), one_of=("id", "sample"), same=("text",))
        self.notes = healed.notes
        return {(row["id"], row["sample"]) for row in healed.rows}

    def append(self, row: dict[str, Any]) -> None:
        """Adds a completion; a kill of this program does not lose it."""
        append_rows(self.path, [row], only_ascii=False)
