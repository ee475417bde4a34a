"""What a run made, as a folder that transformers or peft loads: the merged model or the adapter, with a model card."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from egrsd_jax.config import EvaluationSettings
from egrsd_jax.data.tokenizer import AS_STORED, TOKENIZER_FILES, cuts_otherwise
from egrsd_jax.evaluate.held_out import read_evaluations
from egrsd_jax.evaluate.scores import Scores
from egrsd_jax.model.config import read_config
from egrsd_jax.model.decoder import Params
from egrsd_jax.model.hf.checkpoint_files import DTYPES
from egrsd_jax.model.hf.hub import BUILT_IN, load_pretrained, save_pretrained
from egrsd_jax.model.hf.peft import save_adapter
from egrsd_jax.model.hf.save import new_folder
from egrsd_jax.model.lora import Lora
from egrsd_jax.report.model_card import Exported, model_card
from egrsd_jax.runs.files import read_json, write_json
from egrsd_jax.runs.layout import ENVIRONMENT
from egrsd_jax.runs.lock import held
from egrsd_jax.runs.restore import What, base_folder, read_run, read_trainable
from egrsd_jax.side_files import read_fields

GENERATION = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Of the base's files, not of the new ones: how their weights were kept, who wrote them, and code that is not copied.
STALE_FIELDS = (
    "auto_map",
    "compression_config",
    "model_name",
    "name_or_path",
    "quantization_config",
    "sparsity_config",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
)
NAMED_TEMPLATES = "additional_chat_templates"  # where transformers keeps all but the default
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
STALE_PREFIXES = ("_", "unsloth_")


def export_run(
    run: Path,
    to: Path,
    *,
    what: What = "merged",
    step: int | None = None,
    dtype: str | None = None,
    push: str | None = None,
    base: str | None = None,
) -> Exported:
    """Writes the folder `to` from the newest checkpoint of a run's folder, or the one of `step`; returns what it is.

    `merged` is the whole model, its weights cast to `dtype`, by default the run's `model.param_dtype`; `adapter` is the
    adapter alone, by default in the float32 that it was trained in. The folder appears whole or not at all. `push`
    uploads it as `OWNER/NAME`, which is made, private, where it does not exist. `base` is where the run's model is now,
    if it was moved. Licences and notices of the model's folder come along, and its README.md as BASE_README.md.

    Raises ValueError or OSError of one line that says how to fix it: no such run, no checkpoint, an unknown step,
    a target folder with something in it, the adapter of a run that trained all weights, no login for a push.
    """
    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    if push is not None:
        _check_push(push)
    run = run.absolute()
    config = read_run(run, what, base=base)
    to = new_folder(to)
    base_model = base_folder(run, config)
    model = read_config(base_model)
    step, trainable = read_trainable(run, config, model, step)
    made = Exported(
        config=config,
        name=push or to.name,
        base=config.model.path,
        base_on_hub=config.model.path not in BUILT_IN and not Path(config.model.path).is_dir(),
        what=what,
        dtype=dtype or (config.model.param_dtype if what == "merged" else "float32"),
        step=step,
        evaluations=_evaluations(run, config.evaluation, step),
        environment=_json(run / ENVIRONMENT),
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    with (
        held(to.parent, f".{to.name}.lock", what=to),
        TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as temporary,
    ):
        new_folder(to)  # another export may have ended in between
        folder = Path(temporary) / "export"
        folder.mkdir()
        _write(folder, made, base_model, trainable)
        folder.replace(to)
    if push is not None:
        _push(to, push)
    return made


def _write(folder: Path, made: Exported, base: Path, trainable: Params) -> None:
    config = made.config
    (folder / "README.md").write_text(model_card(made), encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    for template in sorted((base / NAMED_TEMPLATES).glob("*.jinja")):
        (folder / NAMED_TEMPLATES).mkdir(exist_ok=True)
        shutil.copyfile(template, folder / NAMED_TEMPLATES / template.name)
    if cuts_otherwise(base):  # the model was trained on what tokenizer.json says
        file = folder / "tokenizer_config.json"
        write_json(file, read_fields(file) | {"tokenizer_class": AS_STORED[0]}, indent=2)
    for file in sorted(file for file in base.iterdir() if file.is_file() and file.name.upper().startswith(LICENCES)):
        shutil.copyfile(file, folder / file.name)
    if (base / "README.md").is_file():  # where the model is from, and under which licence
        shutil.copyfile(base / "README.md", folder / "BASE_README.md")
    settings = config.lora
    lora = Lora(trainable, settings.alpha / settings.rank, settings.dropout) if settings.rank else None
    if made.what == "adapter":
        assert lora is not None, "read_run refuses the adapter of a run that trained all weights"
        base_model = made.base if made.base_on_hub else str(base.absolute())
        save_adapter(folder, lora, base_model=base_model, dtype=made.dtype)
        return
    fields = _json(base / "config.json")
    _write_generation_config(folder, base, fields)
    model = read_config(base)
    params = load_pretrained(base, dtype=config.model.param_dtype)[1] if lora else trainable
    known = model.to_hf(param_dtype=made.dtype)
    other = {name: value for name, value in fields.items() if name not in known and not _is_stale(name)}
    save_pretrained(folder, model, params, lora=lora, dtype=made.dtype, **other)


def _is_stale(field: str) -> bool:
    return field in STALE_FIELDS or field.startswith(STALE_PREFIXES)


def _write_generation_config(folder: Path, base: Path, fields: dict[str, Any]) -> None:
    """The base model's, or where it has none the token ids that its config.json names."""
    if (base / GENERATION).is_file():
        kept = {name: value for name, value in read_fields(base / GENERATION).items() if not _is_stale(name)}
        write_json(folder / GENERATION, kept, indent=2)
    else:
        write_json(folder / GENERATION, {name: fields[name] for name in TOKEN_IDS if name in fields}, indent=2)


def _evaluations(run: Path, settings: EvaluationSettings, step: int) -> list[tuple[int, Scores]]:
    """The held-out evaluations of a run up to a step, in order."""
    return [(at, scores) for at, scores in read_evaluations(run, settings).items() if at <= step]


def _json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _check_push(repository: str) -> None:
    """A mistake here is reported before hours of work."""
    from huggingface_hub import get_token  # imported late: only a push needs it

    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"--push {repository!r} is not a repository of the hub; give OWNER/NAME")
    if get_token() is None:
        raise ValueError("not logged in to the Hugging Face hub: run `hf auth login`, or set HF_TOKEN, and try again")


def _push(folder: Path, repository: str) -> None:
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(repository, private=True, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise OSError(
            f"{folder} is complete, but it could not be pushed to {repository}: {reason} "
            f"(to try again: hf upload --private {repository} {folder})"
        ) from error
