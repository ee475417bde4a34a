"""What is read of chat templates, those of other models among them."""

import pytest

from egrsd_jax.config import PromptSettings
from egrsd_jax.data.tokenizer import load_tokenizer
from egrsd_jax.preflight.templates import Turns, read_turns
from tests.model_folders import CHAT_TEMPLATE, change, write_tokenizer

OTHER_MODELS = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }} </s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def turns(folder, *, teacher_thinking: bool = True, **files) -> Turns:
    write_tokenizer(folder, **files)
    tokenizer, stop_ids = load_tokenizer(folder)
    return read_turns(tokenizer, folder, stop_ids, PromptSettings(), [72, 73], [72, 74], teacher_thinking)


def test_a_template_that_fits(tmp_path):
    (tmp_path / "generation_config.json").write_text("{}")
    change(tmp_path / "generation_config.json", eos_token_id=[258, 256])
    read = turns(tmp_path)
    assert (read.end_id, read.end_token, read.eos) == (258, "<|im_end|>", 258)
    assert read.generation == (258, 256)
    assert read.stops == {256: "<|endoftext|>", 258: "<|im_end|>"}
    assert read.student_opening == "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert read.teacher_opening == "<|im_start|>assistant\n"
    assert read.thinking is None
    assert read.student_tail != read.teacher_tail


def test_a_template_of_another_model(tmp_path):
    read = turns(tmp_path, chat_template=OTHER_MODELS)
    assert read.end == " </s>\n"
    assert read.end_token == "<"  # no token of this vocabulary: its first byte
    assert read.end_id not in read.stops
    assert read.student_opening == read.teacher_opening == "[assistant] "
    assert "ignores enable_thinking" in str(read.thinking)


def test_a_template_that_always_opens_the_models_turn(tmp_path):
    read = turns(tmp_path, chat_template=CHAT_TEMPLATE.replace("{% if add_generation_prompt %}", "{% if true %}"))
    assert read.student_opening is None


def test_a_template_without_the_models_turns(tmp_path):
    users = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="leaves out the model's turn '480'") as raised:
        turns(tmp_path, chat_template=users)
    assert "\n" not in str(raised.value)


def test_a_template_that_refuses_to_end_in_a_turn_of_the_model(tmp_path):
    strict = "{% if messages[-1].role != 'user' %}{{ raise_exception('who asks?') }}{% endif %}" + CHAT_TEMPLATE
    with pytest.raises(ValueError, match=r"who asks\?; put a template"):
        turns(tmp_path, chat_template=strict)
