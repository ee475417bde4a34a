"""A file of completions, a line each as it ends, and beside it what they were drawn by. Imports no jax."""

import json
from pathlib import Path
from typing import Any

from egrsd_jax.evaluate.samples import RegimeMismatch, differences, drop_half_line, write_whole


class CompletionsFile:
    """A .jsonl file that an interrupted command goes on with.

    Raises ValueError in `bind`: completions drawn by other settings, a file that is not one of these.
    """

    def __init__(self, path: Path):
        self.path = path
        self._regime = path.with_name(path.name + ".settings.json")

    def bind(self, regime: dict[str, Any]) -> set[tuple[str, int]]:
        """Writes what the completions depend on; the prompt's id and number of those that are there already.

        Of a regime everything counts but `free`.
        """
        if self.path.exists() and not self._regime.is_file():
            raise ValueError(
                f"{self.path} is there, and {self._regime.name}, which would say how it was drawn, is not; "
                "nothing is overwritten: give another file with --to"
            )
        if self._regime.is_file():
            was = self._read(self._regime, self._regime.read_text(encoding="utf-8"))
            if self.path.exists() and (different := differences(was, regime)):
                raise RegimeMismatch(
                    f"the completions in {self.path} were drawn otherwise: {'; '.join(different)}; give those "
                    "settings, or another file with --to"
                )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._regime, json.dumps(regime, indent=1) + "\n")
        return self._done()

    def append(self, row: dict[str, Any]) -> None:
        """Adds a completion; a kill of this program does not lose it."""
        with self.path.open("ab") as stream:
            stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")

    def _done(self) -> set[tuple[str, int]]:
        if not self.path.exists():
            return set()
        drop_half_line(self.path)
        rows = [
            self._read(f"{self.path}, line {number}", line)
            for number, line in enumerate(self.path.read_bytes().splitlines(), start=1)
        ]
        return {(row["id"], row["sample"]) for row in rows}

    @staticmethod
    def _read(place: object, text: str | bytes) -> dict[str, Any]:
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"{place} cannot be read ({error}); something changed it") from None
