"""One encoding: what stands before a completion in training is what the policy samples from, over
kinds of tokenizers and templates that users bring.
"""

import json
from types import SimpleNamespace

import pytest
import torch
from support.tiny import CHATML, save
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from trl.data_utils import _tokenize, common_prefix_length

from lab.config.methods import make_config
from lab.data import encoding
from lab.data.batching import encode_examples
from lab.data.corpus import Corpus
from lab.data.encoding import completion_ids, prompt_ids, unknown_text
from lab.data.examples import Demonstration, Pair
from lab.data.report import data_report
from lab.data.token_rows import EncodedExample
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import create
from lab.training.driver import drive
from lab.training.methods.offline import encode_pairs

TEXT = [
    (
        "The sky is blue today. An apple is a fruit, and the stone is not. Q: Name a fruit.\nA: An"
        " apple\n\n Reply: yes please, no 2+2=4 five"
    ),
    (
        "user assistant system Sky? Blue. Green, I think. What is it? It is blue. Be brief.\n the"
        " the sky is is blue an apple"
    ),
] * 3
CPU = torch.device("cpu")
END = "<|end|>"
THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' and loop.last %}{{"
    " m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|end|>\n{% endfor %}{%"
    " if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}"
)
OPTIONAL = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant'"
    " %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|end|>\n{% endfor %}{% if"
    " add_generation_prompt %}<|assistant|>\n{% if not thinking|default(true)"
    " %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ROLES = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}{% if"
    " add_generation_prompt %}<|assistant|>\n{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}"
    " [/INST]{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}{{"
    " raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
TRIMMED = (
    "{{ bos_token }}{% for m in messages %}<|{{ 'model' if m.role == 'assistant' else m.role"
    " }}|>\n{{ m.content | trim }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|model|>\n{%"
    " endif %}"
)
# Merges.
SPACED = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}{% if"
    " add_generation_prompt %}assistant: {% endif %}"
)


def fast(tokenizer, before="", after="", template=None, **names):
    """With `before` and `after`, special tokens that the tokenizer puts around every text."""
    if before or after:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{before} $A {after}".strip(),
            special_tokens=[(t, tokenizer.token_to_id(t)) for t in {before, after} - {""}],
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names
    )
    made.chat_template = template
    return made


def byte_level(*special, prefix_space=False):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=prefix_space),
        decoders.ByteLevel(),
    )
    made.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return made


def metaspace(*special, scheme="first", model="bpe"):
    made = Tokenizer(models.BPE(unk_token="<unk>") if model == "bpe" else models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    options = {"special_tokens": ["<unk>", *special], "show_progress": False}
    made.train_from_iterator(
        TEXT,
        (
            trainers.BpeTrainer(vocab_size=200, **options)
            if model == "bpe"
            else trainers.UnigramTrainer(vocab_size=150, unk_token="<unk>", **options)
        ),
    )
    if model == "bpe":  # With a token for each byte that is in no other.
        learnt = json.loads(made.to_str())["model"]
        known = learnt["vocab"] | {f"<0x{i:02X}>": len(learnt["vocab"]) + i for i in range(256)}
        made.model = models.BPE(
            known,
            [tuple(m) for m in learnt["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    return made


ALL_ONE = {"bos_token": END, "eos_token": END, "unk_token": END}
S = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
B = {"bos_token": "<b>", "eos_token": END}
PLAIN = {
    "one token is start, end and unknown": lambda: fast(byte_level(END), **ALL_ONE),
    "and pad": lambda: fast(byte_level(END), pad_token=END, **ALL_ONE),
    "and is put before every text": lambda: fast(byte_level(END), before=END, **ALL_ONE),
    "start token before every text": lambda: fast(byte_level("<b>", END), before="<b>", **B),
    "end token behind every text": lambda: fast(byte_level(END), after=END, eos_token=END),
    "both": lambda: fast(byte_level("<b>", END), before="<b>", after=END, **B),
    "bytes with a space before every text": lambda: fast(
        byte_level(END, prefix_space=True), eos_token=END
    ),
    "sentencepiece, start token": lambda: fast(metaspace("<s>", "</s>"), before="<s>", **S),
    "sentencepiece, pad is unknown": lambda: fast(
        metaspace("<s>", "</s>"), before="<s>", pad_token="<unk>", **S
    ),
    "sentencepiece, a space after every special token": lambda: fast(
        metaspace("<s>", "</s>", scheme="always"), before="<s>", **S
    ),
    "sentencepiece without a space": lambda: fast(metaspace("<s>", "</s>", scheme="never"), **S),
    "unigram": lambda: fast(metaspace("<s>", "</s>", model="unigram"), **S),
}
CHAT = {
    "ChatML": lambda: fast(
        byte_level(END, "<|im_start|>", "<|im_end|>"),
        template=CHATML,
        eos_token="<|im_end|>",
        pad_token=END,
    ),
    "ChatML, end token of the base": lambda: fast(
        byte_level(END, "<|im_start|>", "<|im_end|>"), template=CHATML, **ALL_ONE
    ),
    "no start token in the template of a tokenizer that adds one": lambda: fast(
        metaspace("<s>", "</s>"), before="<s>", template=ROLES, **S
    ),
    "start token in the template and by the tokenizer": lambda: fast(
        byte_level("<b>", END), before="<b>", template=TRIMMED, **B
    ),
    "start token in the template alone": lambda: fast(
        byte_level("<b>", END), template=TRIMMED, **B
    ),
    "instructions in brackets": lambda: fast(
        metaspace("<s>", "</s>", scheme="always"), before="<s>", template=BRACKETS, **S
    ),
    "end token behind every text": lambda: fast(
        byte_level(END), after=END, eos_token=END, template=ROLES
    ),
    "an empty think block in the trained text": lambda: fast(
        byte_level(END, "<think>", "</think>"), template=OPTIONAL, eos_token=END
    ),
    "a mark that ends in a space": lambda: fast(byte_level(END), template=SPACED, eos_token=END),
    "a mark that ends in a space, sentencepiece": lambda: fast(
        metaspace("<s>", "</s>"), before="<s>", template=SPACED, **S
    ),
}
TEXTS = [
    ("2+2=", "4"),
    ("Q: Name a fruit.\nA: ", "An apple"),
    ("The sky is", " blue"),
    ("Reply:", "yes please\n"),
    ("Q: é ☂", "日本"),
    ("the the", "sky"),
    ("A:\n", "\nAn"),
    ("Reply: ", " no"),
]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def talk(prompt, completion):
    return [user(prompt)], [assistant(completion)]


def trl(tokenizer, prompt, completion):
    """TRL's ids of the prompt alone, and of prompt and completion together."""
    if isinstance(prompt, str):
        return (
            _tokenize(tokenizer, prompt)["input_ids"],
            _tokenize(tokenizer, prompt + completion + tokenizer.eos_token)["input_ids"],
        )
    return (
        _tokenize(tokenizer, prompt, add_generation_prompt=True)["input_ids"],
        _tokenize(tokenizer, prompt + completion)["input_ids"],
    )


def behind(ids, end):
    """Without the end tokens that a tokenizer puts behind a text that has its own."""
    while ids[-2:] == [end, end]:
        ids = ids[:-1]
    return ids


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_prompt_in_training_is_the_prompt_that_is_sampled_from_and_the_text_is_the_files(
    kind,
):
    tokenizer = PLAIN[kind]()
    texts = TEXTS if kind != "unigram" else [t for t in TEXTS if "".join(t).isascii()]
    for (prompt, completion), sampled, found in zip(
        texts,
        prompt_ids(tokenizer, [p for p, _ in texts]),
        completion_ids(tokenizer, texts, "data"),
        strict=True,
    ):
        assert (
            found.prompt == sampled and not found.left_out and sampled[-1] != tokenizer.eos_token_id
        )
        said = tokenizer.decode(found.prompt + found.completion, skip_special_tokens=True)
        assert said == " " * kind.startswith("bytes") + prompt + completion
        alone, whole = trl(tokenizer, prompt, completion)
        assert sampled == (alone[:-1] if kind in ("end token behind every text", "both") else alone)
        if whole[: len(sampled)] == sampled:
            assert found.prompt + found.completion == behind(whole, tokenizer.eos_token_id)
        else:
            assert completion[0] != " " and len(sampled) > common_prefix_length(
                alone, whole
            )  # TRL shortens the prompt here.
        assert not unknown_text(tokenizer, found.prompt + found.completion, prompt, completion)


@pytest.mark.parametrize("kind", CHAT)
def test_a_conversation_in_training_begins_with_the_ids_that_are_sampled_from(kind):
    tokenizer = CHAT[kind]()
    texts = [talk(*t) for t in TEXTS] + [
        (
            [user("Sky?"), assistant("Blue."), user("And the stone?")],
            [assistant("no"), user("Why?"), assistant("2+2")],
        )
    ]
    for (prompt, completion), sampled, found in zip(
        texts,
        prompt_ids(tokenizer, [p for p, _ in texts]),
        completion_ids(tokenizer, texts, "data"),
        strict=True,
    ):
        assert found.prompt == sampled and not found.left_out
        alone, whole = trl(tokenizer, prompt, completion)
        assert sampled == alone and tokenizer.decode(
            found.prompt + found.completion
        ) == tokenizer.decode(whole)
        if whole[: len(alone)] == alone:
            assert found.prompt + found.completion == whole
        else:
            assert len(sampled) > common_prefix_length(alone, whole) and (
                completion[0]["content"].startswith("\n") or "ends in a space" in kind
            )
        assert not unknown_text(
            tokenizer,
            found.prompt + found.completion,
            *encoding.input_texts(tokenizer, prompt, completion),
        )


def test_a_completion_ends_with_one_end_token_where_the_tokenizer_puts_one_behind_every_text():
    tokenizer = PLAIN["both"]()
    (found,) = completion_ids(tokenizer, [("The sky is", " blue")], "data")
    assert (
        found.completion.count(tokenizer.eos_token_id)
        == 1
        == found.prompt.count(tokenizer.bos_token_id)
        and found.completion[-1] == tokenizer.eos_token_id
    )


def test_words_of_the_assistant_at_the_end_of_a_prompt_are_continued_in_training_as_in_sampling():
    tokenizer = CHAT["ChatML"]()
    texts = [([user("Sky?"), assistant("It is")], [assistant(" blue."), user("And?")])]
    (sampled,), (found,) = (
        prompt_ids(tokenizer, [texts[0][0]]),
        completion_ids(tokenizer, texts, "data"),
    )
    assert found.prompt == sampled and tokenizer.decode(sampled).endswith(
        "<|im_start|>assistant\nIt is"
    )
    assert (
        tokenizer.decode(found.completion) == " blue.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n"
    )


def test_a_think_block_that_the_prompt_opens_and_the_trained_text_lacks_is_named():
    tokenizer = fast(byte_level(END, "<think>", "</think>"), template=THINKS, eos_token=END)
    row = talk("Sky?", "Blue.")
    (found,) = completion_ids(tokenizer, [row], "data")
    alone, whole = trl(tokenizer, *row)
    assert found == (
        whole[: common_prefix_length(alone, whole)],
        whole[common_prefix_length(alone, whole) :],
        "<think>\n",
    )
    _, (said,) = Corpus(tokenizer, 99, "keep_start").fitting(
        [Demonstration(*row)] * 2, lambda row: {"example": row.completion}, "mine.jsonl"
    )
    assert said.startswith(
        "mine.jsonl, rows 1, 2: the chat template ends the prompt to sample from with '<think>\\n'"
    )


def test_both_completions_of_a_pair_begin_where_the_first_of_them_departs_from_the_prompt():
    tokenizer = fast(
        byte_level(END, "<think>", "</think>"),
        template=THINKS.replace("m.content.split('</think>')[-1]", "m.content"),
        eos_token=END,
    )
    thinks, does_not = talk("Sky?", "<think>\nUp.</think>Blue."), talk("Sky?", "Blue.")
    run = SimpleNamespace(cache={"corpus": Corpus(tokenizer, 99, "keep_start")})
    (chosen,), (rejected,) = encode_pairs(run, [Pair(thinks[0], thinks[1], does_not[1])])
    alone, first, second = (
        trl(tokenizer, *thinks)[0],
        trl(tokenizer, *thinks)[1],
        trl(tokenizer, *does_not)[1],
    )
    cut = min(common_prefix_length(alone, first), common_prefix_length(alone, second))
    assert cut < common_prefix_length(alone, first) == len(alone)
    assert (chosen, rejected) == (EncodedExample(first, cut), EncodedExample(second, cut))


# What the tokenizer does not know.


def characters(**names):
    """One token a character of a few, and for a tag in brackets."""
    made = Tokenizer(
        models.WordLevel({"<unk>": 0, "</s>": 1, "<tag>": 2, "a": 3, "b": 4}, unk_token="<unk>")
    )
    made.pre_tokenizer, made.decoder = (
        pre_tokenizers.Split(Regex("<tag>|[\\s\\S]"), "isolated"),
        decoders.Fuse(),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", unk_token="<unk>", **names
    )


@pytest.mark.parametrize(
    "names", [{}, {"pad_token": "<unk>"}, {"bos_token": "<unk>"}], ids=["own", "is pad", "is start"]
)
def test_a_character_that_the_tokenizer_has_no_token_for_is_found_though_a_tag_is_made_of_such(
    names,
):
    with pytest.raises(LabError, match="data 2: the model's vocabulary has no 'é'"):
        encode_examples(characters(**names), [("a<tag>", "b"), ("a<tag>", "<tag>bé")], 99, "data")


def test_the_unknown_token_written_out_is_no_unknown_text():
    tokenizer = characters()
    assert encode_examples(tokenizer, [("a<unk>", "b")], 99, "data")[0].ids == [3, 0, 4, 1]
    assert (
        unknown_text(tokenizer, [0, 3], "a<unk>") == ""
        and unknown_text(tokenizer, [0, 3], "xa") == "x"
    )


# From end to end.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose tokenizer is of a kind, in a folder."""

    def folder(kind):
        made = (PLAIN | CHAT)[kind]()
        path = tmp_path_factory.mktemp("model")
        save(
            path,
            vocab_size=len(made),
            bos_token_id=made.bos_token_id,
            eos_token_id=made.eos_token_id,
        )
        made.save_pretrained(path)
        return str(path)

    return folder


@pytest.mark.parametrize(
    "kind", ["and is put before every text", "both", "sentencepiece, start token"]
)
def test_the_sampler_goes_on_from_the_ids_of_training(folder, kind):
    name = folder(kind)
    tokenizer, policy = load_tokenizer(name), load_policy(make_config("grpo", {"model": name}), CPU)
    drawn = sample(
        policy,
        tokenizer,
        prompt_ids(tokenizer, [p for p, _ in TEXTS]),
        1,
        max_tokens=2,
        temperature=1.0,
        seed=0,
        step=0,
        device=CPU,
    )
    for row, mask, example in zip(
        drawn.ids, drawn.completion_mask, encode_examples(tokenizer, TEXTS, 99, "data")
    ):
        assert row[: int(mask.long().argmax())].tolist() == example.ids[: example.prompt_length]


@pytest.mark.parametrize(
    "kind, method",
    [
        ("one token is start, end and unknown", "dpo"),
        ("and is put before every text", "grpo"),
        ("and is put before every text", "kto"),
        ("ChatML, end token of the base", "sft"),
    ],
)
def test_a_model_whose_end_token_is_its_unknown_one_is_trained_and_evaluated(
    folder, tmp_path, kind, method
):
    talks, name = kind in CHAT, folder(kind)
    rows = [
        {
            "prompt": talk(p, c)[0] if talks else p,
            "chosen": talk(p, c)[1] if talks else c,
            "rejected": talk(p, "x")[1] if talks else "x",
        }
        for p, c in TEXTS
    ]
    data, prompts = tmp_path / "data.jsonl", tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    prompts.write_text(
        "".join(json.dumps({"prompt": row["prompt"], "answer": "4"}) + "\n" for row in rows),
        "utf-8",
    )
    offline = {} if method == "grpo" else {"data": str(data)}
    config = {
        "model": name,
        "task": str(prompts),
        "steps": 1,
        "batch_size": 4,
        "eval_prompts": 2,
        "max_completion_tokens": 4,
        "device": "cpu",
    } | offline
    assert (
        drive(
            create(
                tmp_path / "run",
                make_config(method, config | ({"group_size": 2} if method == "grpo" else {})),
            )
        ).step
        == 1
    )
    problems = [p["problem"] for p in data_report(str(data), name, 128)["problems"]]
    assert [text for text in problems if "but for case, spaces or punctuation" not in text] == []
