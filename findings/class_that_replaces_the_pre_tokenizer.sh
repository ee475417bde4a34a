#!/usr/bin/env bash
# transformers 5, AutoTokenizer: the class that a folder names puts a pre-tokenizer of its own over tokenizer.json's.
#
# Versions: transformers 5.24.0, tokenizers as it resolves it (no torch).
# Guess:    tokenizer.json says how text is cut; tokenizer_class in tokenizer_config.json says which special tokens and
#           methods there are. SmolLM2 names GPT2Tokenizer over a file that cuts single digits first.
# Behaviour: vocabulary and merges are taken, the pre-tokenizer is the class's: that of GPT-2 for GPT2Tokenizer and
#           RobertaTokenizer, that of Qwen2 for Qwen2Tokenizer. LlamaTokenizer over such a file is noticed and left out,
#           with a warning; for these there is none. PreTrainedTokenizerFast takes the file as it is.
# Why it matters: who reads tokenizer.json with the tokenizers package and who asks AutoTokenizer have other tokens for
#           the same numbers and blanks, and a model that was trained on the one is sampled or scored on the other.
#           Compare both on a text with numbers and double spaces before training.
# Output seen:
#   three digits at most, PreTrainedTokenizerFast: a ĠĠ 123 45; warnings 0
#   three digits at most, GPT2Tokenizer: a Ġ Ġ 12 345; warnings 0
#   three digits at most, Qwen2Tokenizer: a Ġ Ġ 1 2 3 4 5; warnings 0
#   single digits, PreTrainedTokenizerFast: a ĠĠ 1 2 3 4 5; warnings 0
#   single digits, GPT2Tokenizer: a Ġ Ġ 1 2 3 4 5; warnings 0
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0
cat >"$folder/compare.py" <<'PYTHON'
import json, logging, random
from pathlib import Path
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

records, draw = [], random.Random(0)
handler = logging.Handler()
handler.emit = records.append
logging.getLogger("transformers").addHandler(handler)
texts = [" ".join(str(draw.randrange(100000)) for _ in range(20)) + " a  \n\n" for _ in range(300)]
first = {
    "three digits at most": pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
    "single digits": pre_tokenizers.Digits(individual_digits=True),
}
Path("model").mkdir()
for cut, digits in first.items():
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    own.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False))
    own.save("model/tokenizer.json")
    for name in ("PreTrainedTokenizerFast", "GPT2Tokenizer", "Qwen2Tokenizer"):
        Path("model/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
        records.clear()
        tokens = AutoTokenizer.from_pretrained("model").tokenize("a  12345")
        print(f"{cut}, {name}: {' '.join(tokens)}; warnings {len(records)}")
PYTHON
cd "$folder" && "$folder/venv/bin/python" compare.py | tee seen
diff - <(head -5 seen) <<'SEEN'
three digits at most, PreTrainedTokenizerFast: a ĠĠ 123 45; warnings 0
three digits at most, GPT2Tokenizer: a Ġ Ġ 12 345; warnings 0
three digits at most, Qwen2Tokenizer: a Ġ Ġ 1 2 3 4 5; warnings 0
single digits, PreTrainedTokenizerFast: a ĠĠ 1 2 3 4 5; warnings 0
single digits, GPT2Tokenizer: a Ġ Ġ 1 2 3 4 5; warnings 0
SEEN
