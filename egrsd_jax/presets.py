"""The configurations and grids that come with the project, by name: `arithmetic`, `ablate/orders_gate`.

In a checkout they are the files of `configs/`; an installed package holds the same files inside itself.
"""

import difflib
from pathlib import Path

_INSTALLED = Path(__file__).parent / "configs"
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "configs"
GRIDS = "ablate"
DEFAULT = "arithmetic"


def training_file(given: str | Path) -> Path:
    """The file of a training configuration: a file's path, or else a preset as `NAME`, `NAME.yaml` or
    `configs/NAME.yaml`. Raises ValueError, one line, where it is neither."""
    return _file(given, FOLDER, "configuration")


def grid_file(given: str | Path) -> Path:
    """The file of a grid: a file's path, or else a preset as `NAME`, `NAME.yaml` or `configs/ablate/NAME.yaml`.
    Raises ValueError, one line, where it is neither."""
    return _file(given, FOLDER / GRIDS, "grid")


def _file(given: str | Path, folder: Path, kind: str) -> Path:
    file = Path(given)
    if file.is_file():
        return file
    preset = folder / f"{file.stem if file.suffix in ('.yaml', '.yml') else file.name}.yaml"
    if preset.is_file() and file.parent in (Path(), folder.relative_to(FOLDER), folder.relative_to(FOLDER.parent)):
        return preset
    if file.is_dir():
        raise ValueError(f"{given} is a folder; give a file or the name of a preset")
    names = sorted(preset.stem for preset in folder.glob("*.yaml"))
    likely = difflib.get_close_matches(preset.stem, names, n=1)
    hint = f"the nearest is {likely[0]}" if likely else f"the presets are {', '.join(names)}"
    raise ValueError(f"{given}: there is no such file, and no preset {kind} of that name; {hint}")
