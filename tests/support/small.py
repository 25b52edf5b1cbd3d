"""A language model without training that is made in a blink: for tests that need any model, not
what one has learnt.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def small_model(folder: Path, words: list[str], seed: int = 0) -> str:
    """A random Llama of width 32 in `folder`, one token a word of `words`; returns the folder as
    --model takes it.
    """
    names = ["<pad>", "<eos>", "<unk>", *dict.fromkeys(words)]
    split = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="<unk>")
    )
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    split.decoder = decoders.WordPiece(prefix="##", cleanup=False)  # Puts a space between words.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=split,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(names),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=256,
            initializer_range=0.2,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
