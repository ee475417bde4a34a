"""Where completions are shown: text alone on stdout, thinking dimmed on a terminal, messages on stderr."""

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from egrsd_jax.sample.text import Piece

# A terminal obeys these; a model must not command it. Tabs and line ends stay.
_CONTROLS = dict.fromkeys([code for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"])


class Screen:
    """stdout and stderr of one command."""

    def __init__(self):
        self._console = Console(highlight=False)
        self._at_line_start = True

    def show(self, pieces: Iterable[Piece]) -> None:
        """Text where the last ended, as it is where stdout is no terminal."""
        for piece in pieces:
            if self._console.is_terminal:
                style = "dim" if piece.thinking else ""
                self._console.print(Text(piece.text.translate(_CONTROLS), style=style), end="", soft_wrap=True)
            else:
                sys.stdout.write(piece.text)
            self._at_line_start = piece.text.endswith("\n")
        sys.stdout.flush()

    def end_line(self) -> None:
        """A line end, unless there just was one."""
        if not self._at_line_start:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._at_line_start = True

    def heading(self, text: str) -> None:
        """A line above what is shown next."""
        self._console.print(Text(f"── {text} ──", style="bold"), soft_wrap=True)

    def say(self, text: str) -> None:
        """A line about what is shown, on stderr."""
        print(text, file=sys.stderr, flush=True)
