"""Random models of a few thousand weights with a tokenizer of bytes, in Hugging Face's format, for
tests of what users bring.
"""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    set_seed,
)

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'"
    " }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIZE = {"vocab_size": 264, "bos_token_id": 257, "eos_token_id": 258}
CONFIGS = {
    "llama": lambda: LlamaConfig(
        **SIZE,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    ),
    "qwen2": lambda: Qwen2Config(
        **SIZE,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    ),
    "gpt_neox": lambda: GPTNeoXConfig(
        **SIZE,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_dropout=0.0,
        hidden_dropout=0.0,
    ),
    "gpt2": lambda: GPT2Config(**SIZE, n_embd=16, n_layer=2, n_head=2, n_positions=256),
}


def tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """One token a byte, four special ones, and a chat template if one is given."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    whole.pre_tokenizer, whole.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    whole.add_special_tokens(["<pad>", "<|im_start|>", "<|im_end|>", "<unk>"])
    made = PreTrainedTokenizerFast(
        tokenizer_object=whole, pad_token="<pad>", bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    made.chat_template = template
    return made


def save(folder: Path, kind: str = "llama", template: str | None = CHATML, **changes) -> str:
    """Write such a model, the same at every call, with its tokenizer; returns the folder as text."""
    config = CONFIGS[kind]()
    for name, value in changes.items():
        setattr(config, name, value)
    set_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return str(folder)
