"""The README.md of an exported model: what it is, how it was made, how it did on held-out problems, how to use it."""

from dataclasses import asdict, dataclass
from typing import Any

import yaml

from egrsd_jax import __version__
from egrsd_jax.config import Config, PromptSettings
from egrsd_jax.evaluate.scores import Scores, paired_difference
from egrsd_jax.objective.methods import METHODS

# Settings of a method that its card names, and how; the whole configuration is at the card's end.
SHOWN = {"gamma": "γ", "window": "W", "epsilon": "ε", "floor": "gate floor", "beta": "β", "teacher": "teacher"}

USAGE = """## Use

```python
{imports}

model = {model}.from_pretrained("{name}", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("{name}")
messages = [{messages}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, enable_thinking={thinking}, return_dict=True, return_tensors="pt"
)
output = model.generate(**inputs, max_new_tokens={max_new_tokens})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))
```"""


@dataclass(frozen=True)
class Exported:
    """What a card is about.

    Args:
        name: the repository or folder that the usage snippet loads.
        base: the base model's repository or folder, and
        base_on_hub: whether it is a repository, which the hub can link to.
        what: `merged`, a whole model, or `adapter`.
        dtype: of the numbers that were written.
        step: gradient steps that were taken.
        evaluations: held-out evaluations up to that step, with theirs.
        environment: versions, as the run recorded them.
    """

    config: Config
    name: str
    base: str
    base_on_hub: bool
    what: str
    dtype: str
    step: int
    evaluations: list[tuple[int, Scores]]
    environment: dict[str, Any]


def model_card(made: Exported) -> str:
    """The whole README.md."""
    sections = [_front_matter(made), _title(made), _how(made), _results(made), _usage(made), _configuration(made)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(made: Exported) -> str:
    fields: dict[str, Any] = {
        "library_name": "peft" if made.what == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["egrsd-jax", "on-policy-self-distillation", "reasoning"],
    }
    if made.base_on_hub:
        fields = {"base_model": made.base, **fields}
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _title(made: Exported) -> str:
    lora = made.config.lora
    if made.what == "adapter":
        form = "This is a LoRA adapter in PEFT's format; it needs the base model."
    elif lora.rank:
        form = f"This is the whole model: a LoRA adapter of rank {lora.rank}, merged into the base weights."
    else:
        form = "This is the whole model; all of its weights were trained."
    method = METHODS[made.config.method.name].description
    return f"# {made.name.rpartition('/')[2]}\n\n`{made.base}`, trained by {method}. {form}"


def _how(made: Exported) -> str:
    config = made.config
    method, train, rollout, lora = config.method, config.train, config.rollout, config.lora
    used = [field for field in SHOWN if field in method.__dataclass_fields__]
    settings = ", ".join([f"`{method.name}`", *(f"{SHOWN[field]} {getattr(method, field)}" for field in used)])
    trained = f"LoRA r {lora.rank}, α {lora.alpha:g}, on all projections" if lora.rank else "all weights"
    rows = {
        "base model": f"`{made.base}`",
        "method": settings,
        "advantage": f"{config.reward.advantage}, length bonus {config.reward.length_bonus}",
        "trained": f"{trained}; written as {made.dtype}",
        "steps": f"{made.step} of {train.steps}, {train.batch_size} completions each, "
        f"{rollout.samples_per_problem} a problem",
        "optimizer": f"AdamW, learning rate {train.learning_rate:g} after {train.warmup_steps} warm-up steps, "
        f"gradient norm at most {train.max_grad_norm:g}",
        "sampling": f"temperature {rollout.temperature:g}, top-p {rollout.top_p:g}, top-k {rollout.top_k}, at most "
        f"{rollout.max_new_tokens:,} tokens, thinking {_on_off(config.prompt.student_thinking)}",
        "data": f"`{config.data.path}`{f', {config.data.name}' if config.data.name else ''}, split {config.data.split}",
        "seed": str(config.seed),
        "versions": _versions(made.environment),
    }
    return "## How it was made\n\n| | |\n|---|---|\n" + "\n".join(f"| {name} | {what} |" for name, what in rows.items())


def _versions(environment: dict[str, Any]) -> str:
    packages = environment.get("packages", {})
    installed = [f"{name} {version}" for name, version in packages.items() if version]
    commit = (environment.get("git") or {}).get("commit")
    return ", ".join(
        [f"egrsd-jax {environment.get('version', __version__)}{f' ({commit[:12]})' if commit else ''}", *installed]
    )


def _results(made: Exported) -> str:
    """Before and after, on the same problems with the same random keys; nothing where the run evaluated nothing."""
    if not made.evaluations:
        return ""
    settings = made.config.evaluation
    first, last = made.evaluations[0], made.evaluations[-1]
    shown = [first] if first is last else [first, last]
    rows = [
        f"| step {step}{' (base model)' if step == 0 else ''} "
        f"| {_plus_minus(100 * evaluation.accuracy, 100 * evaluation.accuracy_error)} "
        f"| {_plus_minus(evaluation.mean_length, evaluation.length_error)} |{_known(evaluation.no_answer)} "
        f"| {100 * evaluation.cut_off:.1f} | {100 * evaluation.ungradable_share:.1f} |"
        for step, evaluation in shown
    ]
    if len(shown) == 2:
        change = paired_difference(first[1], last[1])
        accuracy = _plus_minus(100 * change["accuracy"], 100 * change["accuracy_error"], sign="+")
        length = _plus_minus(change["length"], change["length_error"], sign="+")
        rows.append(f"| change | {accuracy} | {length} | | | |")
    correct = first[1].correct
    how = (
        f"`{settings.path}`, {len(correct)} problems × {len(correct[0])} samples, "
        f"temperature {settings.temperature:g}, top-p {settings.top_p:g}, at most {settings.max_new_tokens:,} tokens, "
        f"thinking {_on_off(settings.thinking)}. "
        "± is one standard error over problems, paired in the last row."
    )
    head = "| | accuracy (%) | tokens | no answer (%) | cut off (%) | ungradable (%) |\n|---|---|---|---|---|---|"
    return "\n".join(["## Held-out evaluation", "", how, "", head, *rows])


def _usage(made: Exported) -> str:
    whole = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    adapter = "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer"
    return USAGE.format(
        imports=adapter if made.what == "adapter" else whole,
        model="AutoPeftModelForCausalLM" if made.what == "adapter" else "AutoModelForCausalLM",
        name=made.name,
        messages=_messages(made.config.prompt),
        thinking=made.config.evaluation.thinking,
        max_new_tokens=made.config.evaluation.max_new_tokens,
    )


def _messages(prompt: PromptSettings) -> str:
    """The turns of one prompt as Python writes them."""
    turns = [("system", prompt.system)] if prompt.system else []
    for problem, solution in prompt.examples:
        turns += [("user", prompt.student.replace("{problem}", problem)), ("assistant", solution)]
    turns.append(("user", prompt.student.replace("{problem}", "What is 6 · 7?")))
    return ", ".join(f'{{"role": "{role}", "content": {content!r}}}' for role, content in turns)


def _configuration(made: Exported) -> str:
    """Every setting, but for where the run kept its files."""
    settings = {name: value for name, value in asdict(made.config).items() if name != "run"}
    return f"## Every setting\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}```"


def _plus_minus(value: float, error: float, sign: str = "") -> str:
    return f"{value:{sign}.1f} ± {error:.1f}"


def _known(share: float | None) -> str:
    return "" if share is None else f" {100 * share:.1f}"


def _on_off(flag: bool) -> str:
    return "on" if flag else "off"
