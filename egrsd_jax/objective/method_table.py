"""What README.md and docs/ say of each method, made from the records: `python -m egrsd_jax.objective.method_table`.

The same words explain the methods' settings in `--help`.
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from egrsd_jax.objective.method import Method, default_of
from egrsd_jax.objective.methods import METHODS
from egrsd_jax.objective.settings import FOLLOWS, OPEN, MethodSettings, TeacherSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = {  # and the parts of each that are made here
    "README.md": ("names",),
    "docs/methods.md": ("methods", "settings"),
    "docs/metrics.md": ("groups",),
}
COMMAND = "python -m egrsd_jax.objective.method_table"


def explanation(field: str) -> str:
    """What a setting is for, in the words of the first method that has it."""
    return next(method for method in METHODS.values() if field in method.settings.__dataclass_fields__).explanation(
        field
    )


def published_values(field: str) -> str:
    """A setting's published values and whose they are: `frozen; ema for sdpo, sdft`.

    Where every method with a teacher has the setting, the most frequent value has no names.
    """
    methods: dict[str, list[str]] = {}
    for method in METHODS.values():
        if field in method.own_fields:
            methods.setdefault(_value(method, field), []).append(method.name)
    most, *others = sorted(methods, key=lambda value: -len(methods[value]))
    values = [f"{value} for {', '.join(methods[value])}" for value in others]
    is_common = all(field in method.own_fields for method in METHODS.values() if method.teacher)
    first = most if is_common else f"{most} for {', '.join(methods[most])}"
    return "; ".join([first, *values])


def made_anew(page: str, parts: Sequence[str]) -> str:
    """The page with these parts, each between two marks, made anew. Raises ValueError where the marks are missing."""
    makers = {"names": _name_lines, "methods": _method_rows, "settings": _setting_rows, "groups": _group_lines}
    for part in parts:
        begin, end = f"<!-- {part}: made by {COMMAND} -->", f"<!-- end of {part} -->"
        before, has_begin, rest = page.partition(begin)
        _, has_end, after = rest.partition(end)
        if not (has_begin and has_end):
            raise ValueError(f"the page has no lines {begin!r} and {end!r}")
        page = "\n".join([before + begin, *makers[part](), end + after])
    return page


def _name_lines() -> list[str]:
    """The methods' names, in lines."""
    return wrap(", ".join(f"`{name}`" for name in METHODS) + ".", 120)


def _method_rows() -> list[str]:
    """One row per method: name, token loss, published setting, source, what is open."""
    rows = [
        [
            f"`{method.name}`",
            method.formula,
            _published(method),
            f"[{method.arxiv}](https://arxiv.org/abs/{method.arxiv})" if method.arxiv else "",
            method.choices,
        ]
        for method in METHODS.values()
    ]
    return _table(["name", "token loss", "published setting", "source", "open, and chosen here"], rows)


def _setting_rows() -> list[str]:
    """One row per setting: name, what it is for, published values."""
    fields = dict.fromkeys(field for method in METHODS.values() for field in method.own_fields)
    return _table(
        ["`--method.`", "what it is", "published"],
        [[f"`{field}`", explanation(field), published_values(field)] for field in fields],
    )


def _group_lines() -> list[str]:
    """One line per group of methods that docs/metrics.md refers to."""
    members = {
        "teacher": [name for name, method in METHODS.items() if method.teacher],
        "gate": [name for name, method in METHODS.items() if method.gated],
        "divergence": [name for name, method in METHODS.items() if method.divergence],
    }
    return [f"- **{group}**: {', '.join(f'`{name}`' for name in names)}" for group, names in members.items()]


def _published(method: Method) -> str:
    """The settings that say something about this method, and what of the run belongs to it."""
    parts = []
    for field in method.own_fields:
        value, shared = default_of(method.settings, field), _shared_default(method, field)
        if value != shared or (isinstance(value, int | float) and not hasattr(TeacherSettings, field)):
            parts.append(f"`{field}` {_value(method, field)}")
    if method.samples_per_problem > 1:
        parts.append(f"{method.samples_per_problem} completions per problem")
    if method.advantage != "running":
        parts.append(f"`reward.advantage` {method.advantage}")
    return ", ".join(parts)


def _shared_default(method: Method, field: str) -> object:
    """The default of the class that a method's settings take a field from."""
    kinds = [kind for kind in method.settings.__mro__[1:] if issubclass(kind, MethodSettings)]
    has_it = [kind for kind in kinds if field in kind.__dataclass_fields__]
    return default_of(has_it[-1], field) if has_it else None


def _value(method: Method, field: str) -> str:
    """A published value in words."""
    value = default_of(method.settings, field)
    return f"`{FOLLOWS[field]}`" if value is OPEN else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in (head, ["---"] * len(head), *rows)]
    return [f"| {' | '.join(cells)} |" for cells in escaped]


if __name__ == "__main__":
    for name, parts in PAGES.items():
        (ROOT / name).write_text(made_anew((ROOT / name).read_text(encoding="utf-8"), parts), encoding="utf-8")
