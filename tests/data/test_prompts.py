from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from egrsd_jax.data.problems import Problem, load_problems
from egrsd_jax.data.prompts import (
    STUDENT_TEMPLATE,
    TEACHER_TEMPLATE,
    PromptTemplates,
    encode_problems,
    encode_student,
    encode_teacher,
    stop_token_ids,
)

SUM = Problem("1", "What is 1 + 1?", r"Adding gives \boxed{2}.", "2")
SHORT = PromptTemplates(student="{problem} think", teacher="{problem} hint {solution} think")

# One token a character, marks apart: any text goes in and comes out again, and lengths can be counted by hand.
MARKS = ["<user>", "<end>", "<model>", "<think>", "</think>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<user>{{ message.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<model>{% if not enable_thinking %}<think></think>{% endif %}{% endif %}"
)


def character_tokenizer(*more_marks, **special):
    """A tokenizer of printable ASCII with a chat template that knows enable_thinking as Qwen3's does."""
    words = [*MARKS, *more_marks, *map(chr, range(32, 127)), "\n"]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}))
    marks = "|".join(mark.replace("|", r"\|") for mark in (*MARKS, *more_marks))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{marks}|[\\s\\S]"), behavior="isolated")
    # As many tokenizers do, it ends a text by itself unless asked not to: the chat template has written every mark.
    core.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", words.index("<end>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=CHAT_TEMPLATE, **special)


@cache
def load_tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def text_of(tokenizer, ids):
    return "".join(tokenizer.convert_ids_to_tokens(ids))


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer(eos_token="<end>")


class TestTemplates:
    def test_defaults_ask_for_a_boxed_answer_in_the_same_words(self):
        request = STUDENT_TEMPLATE.removeprefix("{problem}\n\n")
        assert r"\boxed{}" in request
        assert TEACHER_TEMPLATE.endswith(request)
        assert TEACHER_TEMPLATE.index("{problem}") < TEACHER_TEMPLATE.index("{solution}")

    @pytest.mark.parametrize(
        ("templates", "message"),
        [
            ({"student": "solve it"}, r"the student's template lacks the placeholder \{problem\}"),
            ({"student": "{problem} {solution}"}, r"the student's template has the placeholder \{solution\}"),
            ({"student": "{problem} {Problem}"}, r"\{Problem\}; it may have only \{problem\}"),
            ({"teacher": "{solution}"}, r"the teacher's template lacks the placeholder \{problem\}"),
            ({"teacher": "{problem}"}, r"the teacher's template lacks the placeholder \{solution\}"),
            (
                {"teacher": "{problem} {solution} {answer}"},
                r"\{answer\}; it may have only \{problem\} and \{solution\}",
            ),
        ],
    )
    def test_wrong_placeholder_is_named(self, templates, message):
        with pytest.raises(ValueError, match=message):
            PromptTemplates(**templates)


class TestEncode:
    def test_student(self, tokenizer):
        assert text_of(tokenizer, encode_student(tokenizer, SHORT, SUM)) == (
            "<user>What is 1 + 1? think<end><model><think></think>"
        )

    def test_teacher(self, tokenizer):
        assert text_of(tokenizer, encode_teacher(tokenizer, SHORT, SUM)) == (
            r"<user>What is 1 + 1? hint Adding gives \boxed{2}. think<end><model>"
        )

    @pytest.mark.parametrize("thinking", [False, True])
    def test_thinking_is_chosen_for_each(self, tokenizer, thinking):
        templates = PromptTemplates(student_thinking=thinking, teacher_thinking=thinking)
        for encode in (encode_student, encode_teacher):
            text = text_of(tokenizer, encode(tokenizer, templates, SUM))
            assert text.endswith("<end><model>" if thinking else "<end><model><think></think>")

    @pytest.mark.parametrize(
        ("problem", "solution"),
        [
            ("{solution}", "{problem}"),
            ("{{problem}}", r"\frac{1}{2} {0} {}"),
            (r"\1 \g<0> {x}", "{answer} %s $problem"),
        ],
    )
    def test_braces_in_the_texts_mean_nothing(self, tokenizer, problem, solution):
        item = Problem("1", problem, solution, "a")
        assert text_of(tokenizer, encode_teacher(tokenizer, SHORT, item)) == (
            f"<user>{problem} hint {solution} think<end><model>"
        )

    @given(problem=st.text("{}problemsolution \\\n", min_size=1), solution=st.text("{}problemsolution \\\n"))
    def test_texts_come_out_as_they_went_in(self, tokenizer, problem, solution):
        item = Problem("1", problem, solution + "!", "a")
        assert text_of(tokenizer, encode_student(tokenizer, SHORT, item)) == (
            f"<user>{problem} think<end><model><think></think>"
        )
        assert text_of(tokenizer, encode_teacher(tokenizer, SHORT, item)) == (
            f"<user>{problem} hint {solution}! think<end><model>"
        )

    def test_teacher_needs_a_solution(self, tokenizer):
        with pytest.raises(ValueError, match="problem 7 has no solution"):
            encode_teacher(tokenizer, SHORT, Problem("7", "p", "", "a"))

    def test_tokenizer_needs_a_chat_template(self):
        bare = character_tokenizer()
        bare.chat_template = None
        with pytest.raises(ValueError, match="has no chat template"):
            encode_student(bare, SHORT, SUM)


class TestEncodeProblems:
    def test_keeps_those_whose_prompts_both_fit(self, tokenizer):
        # Marks and the word "think": 4 for the turn, its end and the model's, and 6 for " think"; thinking off adds 2.
        problems = [Problem(str(size), "p" * size, "s" * (2 * size), "a") for size in (1, 5, 2)]
        teacher_lengths = [len(encode_teacher(tokenizer, SHORT, problem)) for problem in problems]
        assert teacher_lengths == [3 + 1 + 6 + 2 + 6, 3 + 5 + 6 + 10 + 6, 3 + 2 + 6 + 4 + 6]
        encoded = encode_problems(tokenizer, SHORT, problems, max_prompt_tokens=teacher_lengths[2])
        assert encoded.problems == [problems[0], problems[2]]
        assert encoded.student_prompts == [encode_student(tokenizer, SHORT, problem) for problem in encoded.problems]
        assert encoded.teacher_prompts == [encode_teacher(tokenizer, SHORT, problem) for problem in encoded.problems]
        assert encoded.too_long == [("5", 3 + 2 + 5 + 6, teacher_lengths[1])]

    def test_students_prompt_can_be_the_longer(self, tokenizer):
        templates = PromptTemplates(student="{problem}" + "x" * 50, teacher="{problem}{solution}")
        fits = encode_problems(tokenizer, templates, [SUM], max_prompt_tokens=69)
        assert fits.too_long == []
        with pytest.raises(ValueError, match="max_prompt_tokens=68: they take 69 to 69 tokens"):
            encode_problems(tokenizer, templates, [SUM], max_prompt_tokens=68)

    def test_none_fits(self, tokenizer):
        problems = [Problem(str(size), "p" * size, "s", "a") for size in (1, 9)]
        with pytest.raises(ValueError, match="max_prompt_tokens=10: they take 17 to 25 tokens"):
            encode_problems(tokenizer, SHORT, problems, max_prompt_tokens=10)

    def test_no_problems(self, tokenizer):
        with pytest.raises(ValueError, match="there are no problems"):
            encode_problems(tokenizer, SHORT, [], max_prompt_tokens=10)


class TestStopTokenIds:
    def test_end_of_sequence_of_the_tokenizer(self, tokenizer):
        assert stop_token_ids(tokenizer) == (MARKS.index("<end>"),)

    def test_both_of_qwen_and_those_of_the_generation_config(self):
        both = character_tokenizer("<|im_end|>", "<|endoftext|>", eos_token="<end>")
        assert stop_token_ids(both) == (1, 5, 6)
        assert stop_token_ids(both, 3) == (1, 3, 5, 6)
        assert stop_token_ids(both, [6, 90, 0]) == (0, 1, 5, 6, 90)

    def test_none_at_all_is_an_error(self):
        with pytest.raises(ValueError, match="no stop token"):
            stop_token_ids(character_tokenizer())


class TestQwen3:
    @pytest.fixture
    def qwen3(self, shared_data):
        return load_tokenizer(shared_data / "qwen3_tokenizer")

    def test_student_without_thinking_closes_the_think_block(self, qwen3):
        templates = PromptTemplates(student="{problem}\nBox it: \\boxed{}")
        prompt = encode_student(qwen3, templates, SUM)
        assert qwen3.decode(prompt) == (
            "<|im_start|>user\nWhat is 1 + 1?\nBox it: \\boxed{}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )
        assert prompt[:3] == [151644, 872, 198]
        assert prompt[-7:] == [151644, 77091, 198, 151667, 271, 151668, 271]

    def test_teacher_with_thinking_leaves_the_think_mark_to_be_sampled(self, qwen3):
        templates = PromptTemplates(teacher="{problem}\n<<<{solution}>>>")
        prompt = encode_teacher(qwen3, templates, SUM)
        assert qwen3.decode(prompt) == (
            "<|im_start|>user\nWhat is 1 + 1?\n<<<Adding gives \\boxed{2}.>>><|im_end|>\n<|im_start|>assistant\n"
        )
        assert prompt[-5:] == [151645, 198, 151644, 77091, 198]

    def test_ids_are_those_of_the_chat_template_itself(self, qwen3):
        for thinking in (False, True):
            expected = qwen3.apply_chat_template(
                [{"role": "user", "content": SUM.problem}],
                add_generation_prompt=True,
                enable_thinking=thinking,
                return_dict=False,
            )
            templates = PromptTemplates(student="{problem}", student_thinking=thinking)
            assert encode_student(qwen3, templates, SUM) == expected

    def test_stop_tokens(self, qwen3):
        assert stop_token_ids(qwen3) == (151643, 151645)
        assert stop_token_ids(qwen3, [151645, 151643]) == (151643, 151645)

    def test_gsm8k_prompts(self, qwen3, shared_data):
        loaded = load_problems(
            str(shared_data / "gsm8k" / "train.jsonl"), problem="question", solution="answer", limit=100
        )
        encoded = encode_problems(qwen3, PromptTemplates(), loaded.problems, max_prompt_tokens=300)
        assert len(encoded.problems) + len(encoded.too_long) == 100
        assert all(max(long.student_tokens, long.teacher_tokens) > 300 for long in encoded.too_long)
        for problem, student, teacher in zip(*encoded[:3], strict=True):
            assert problem.problem in qwen3.decode(student)
            assert problem.solution in qwen3.decode(teacher)
            assert problem.solution not in qwen3.decode(student)
