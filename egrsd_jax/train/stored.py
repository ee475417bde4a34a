"""Completions that are sampled once, by the policy before training, and that every run after the first one reads.

One line per completion of a problem. The first line says what they depend on: model, tokenizer, problems and their
prompts, and how they were sampled.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from egrsd_jax.rollout.requests import Completion
from egrsd_jax.runs import lock
from egrsd_jax.runs.fingerprint import IsOf
from egrsd_jax.runs.rows import append_rows, heal

Place = tuple[int, int]  # a problem's number among those that the run trains on, and the sample's number
FIELDS = ("problem", "sample", "tokens", "logp", "ended")


class StoredCompletions:
    """The completions of a file; what it lacks is sampled and added.

    `depends_on` is what a completion depends on, in words what each is; `is_of` compares fingerprints that earlier
    versions made otherwise. Of several hosts one `writes`. `notes` has a line on damaged ones. Raises ValueError, one
    line, for a file whose completions depend on anything else.
    """

    def __init__(
        self, file: Path, depends_on: Mapping[str, Any], *, writes: bool = True, is_of: Mapping[str, IsOf] | None = None
    ):
        self._file, self._depends_on, self._writes, self._is_of = file, dict(depends_on), writes, is_of or {}
        self._completions: dict[Place, Completion] = {}
        self.notes: list[str] = []
        self._read()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._completions)

    def completions(self, places: Sequence[Place], sample: Callable[[list[int]], list[Completion]]) -> list[Completion]:
        """One completion for each of the places; `sample` is given the indices of those that the file lacks, and its
        completions are added before anything is learned from them. Raises Locked where another run is adding some."""
        missing = [number for number, place in enumerate(places) if place not in self._completions]
        if missing and self._writes:
            lock.hold(self._file.absolute().parent, f".{self._file.name}", what=self._file)
            self._read()  # another run may have added some
            missing = [number for number, place in enumerate(places) if place not in self._completions]
        if missing:
            new = dict(zip((places[number] for number in missing), sample(missing), strict=True))
            self._completions |= new
            if self._writes:
                self._append(new)
        return [self._completions[place] for place in places]

    def _append(self, new: Mapping[Place, Completion]) -> None:
        if not self._file.exists():
            append_rows(self._file, [{"depends_on": self._depends_on}])
        append_rows(
            self._file,
            (
                {
                    "problem": problem,
                    "sample": number,
                    "tokens": completion.tokens,
                    "logp": np.asarray(completion.logp, float).tolist(),
                    "ended": completion.ended,
                }
                for (problem, number), completion in new.items()
            ),
        )

    def _read(self) -> None:
        healed = heal(self._file)
        self.notes += healed.notes
        if not healed.rows:
            return
        head, *rows = healed.rows
        if "depends_on" not in head:
            raise ValueError(f"{self._file} is no file of stored completions; give rollout.stored another one")
        for name, now in [*self._depends_on.items()]:
            was = head["depends_on"].get(name)
            if isinstance(was, str) and was != now and name in self._is_of and self._is_of[name](was):
                self._depends_on[name] = now = was
            if was != now:
                shown = ("", "") if isinstance(now, str) and len(now) > 40 else (f" {was}", f", and now {now}")
                raise ValueError(
                    f"{self._file} holds completions with another {name}{shown[0]}{shown[1]}; give rollout.stored a "
                    "new file, or put back what was there"
                )
        for row in rows:
            if set(FIELDS) <= row.keys():
                logp = np.asarray(row["logp"], np.float32)
                self._completions[row["problem"], row["sample"]] = Completion(row["tokens"], logp, row["ended"])
