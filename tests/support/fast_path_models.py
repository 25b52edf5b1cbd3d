"""Small models of every architecture with a fast path, and batches for them."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.models.auto import AutoModelForCausalLM

from lab.data.batching import TokenBatch
from lab.models.fused_weights import fuse_projection_weights

SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": None,
}  # Otherwise 2 would end a completion, beside the tokenizer's own.


SHAPES = {
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "llama, other head width": LlamaConfig(**SMALL, head_dim=12),
    "llama 3's positions": LlamaConfig(
        **SMALL,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "mistral": MistralConfig(**SMALL, sliding_window=None),
    "qwen2, with biases": Qwen2Config(**SMALL),
    "qwen3, with norms of queries and keys": Qwen3Config(**SMALL, head_dim=16),
}


EXACT = {"rtol": 1e-4, "atol": 1e-5}  # float32 sums in another order


def policy(config, seed=0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM")
    ).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name or name.endswith("proj.bias") or "norm" in name:
            weight.data.normal_(std=0.3).add_(1.0 if "norm" in name else 0.0)
    fuse_projection_weights(model)
    return model


def batch(width=17, rows=5, seed=0):
    """Rows of different lengths, prompts of different lengths, junk behind their ends."""
    noise = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 40, (rows, width), generator=noise)
    ends = torch.randint(6, width + 1, (rows, 1), generator=noise)
    starts = torch.randint(1, 5, (rows, 1), generator=noise)
    place = torch.arange(width)
    return TokenBatch(ids, (place >= starts) & (place < ends))
