"""Tiny random models of many architectures: the table behind the tests of what the lab can train,
and behind the list in docs/own-model.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from support.tiny import tokenizer
from transformers import AutoModelForCausalLM, PreTrainedConfig, set_seed

SIZE = {"vocab_size": 264, "bos_token_id": 257, "eos_token_id": 258, "pad_token_id": 256}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
MAMBA = {
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}


def _made(name: str, *parts: dict[str, Any], **own: Any) -> Callable[[], PreTrainedConfig]:
    """A function that makes the config `name` of transformers."""
    settings = SIZE | {key: value for part in parts for key, value in part.items()} | own
    return lambda: getattr(transformers, name)(**settings)


CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": _made("LlamaConfig", GROUPED),
    "mistral": _made("MistralConfig", GROUPED, sliding_window=8),
    "ministral": _made("MinistralConfig", HEADS, MIXED),
    "qwen2": _made("Qwen2Config", GROUPED),
    "qwen3": _made("Qwen3Config", HEADS),
    "gemma": _made("GemmaConfig", HEADS),
    "gemma2": _made("Gemma2Config", HEADS, MIXED, query_pre_attn_scalar=8),
    "gemma3_text": _made("Gemma3TextConfig", HEADS, MIXED, query_pre_attn_scalar=8),
    "phi": _made("PhiConfig", GROUPED, resid_pdrop=0.0, embd_pdrop=0.0),
    "phi3": _made("Phi3Config", GROUPED),
    "gpt2": _made("GPT2Config", GPT, n_positions=128),
    "gpt_neo": _made(
        "GPTNeoConfig",
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
        max_position_embeddings=128,
        intermediate_size=48,
    ),
    "gpt_neox": _made("GPTNeoXConfig", SMALL),
    "gptj": _made("GPTJConfig", GPT, rotary_dim=8, n_positions=128),
    "gpt_bigcode": _made("GPTBigCodeConfig", GPT, n_positions=128),
    "codegen": _made("CodeGenConfig", GPT, rotary_dim=4, n_positions=128, n_ctx=128),
    "opt": _made(
        "OPTConfig",
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        max_position_embeddings=128,
    ),
    "bloom": _made("BloomConfig", hidden_size=32, n_layer=2, n_head=4),
    "falcon": _made(
        "FalconConfig",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        alibi=False,
        new_decoder_architecture=False,
    ),
    "mpt": _made(
        "MptConfig", d_model=32, n_layers=2, n_heads=4, max_seq_len=128, expansion_ratio=2
    ),
    "starcoder2": _made("Starcoder2Config", GROUPED, sliding_window=8),
    "stablelm": _made("StableLmConfig", GROUPED),
    "persimmon": _made("PersimmonConfig", SMALL),
    "olmo": _made("OlmoConfig", GROUPED),
    "olmo2": _made("Olmo2Config", GROUPED),
    "olmo3": _made("Olmo3Config", GROUPED, MIXED),
    "cohere": _made("CohereConfig", GROUPED),
    "cohere2": _made("Cohere2Config", HEADS, MIXED),
    "granite": _made(
        "GraniteConfig",
        GROUPED,
        logits_scaling=2.0,
        embedding_multiplier=3.0,
        residual_multiplier=0.5,
        attention_multiplier=0.2,
    ),
    "glm": _made("GlmConfig", HEADS),
    "glm4": _made("Glm4Config", HEADS),
    "exaone4": _made("Exaone4Config", HEADS, MIXED),
    "ernie4_5": _made("Ernie4_5Config", HEADS),
    "helium": _made("HeliumConfig", HEADS),
    "nemotron": _made("NemotronConfig", HEADS),
    "smollm3": _made("SmolLM3Config", GROUPED),
    "seed_oss": _made("SeedOssConfig", HEADS),
    "apertus": _made("ApertusConfig", GROUPED),
    "arcee": _made("ArceeConfig", HEADS),
    "biogpt": _made("BioGptConfig", SMALL, max_position_embeddings=128),
    "mixtral": _made("MixtralConfig", GROUPED, LOCAL),
    "qwen2_moe": _made("Qwen2MoeConfig", GROUPED, EXPERTS, shared_expert_intermediate_size=24),
    "qwen3_moe": _made("Qwen3MoeConfig", HEADS, EXPERTS),
    "olmoe": _made("OlmoeConfig", GROUPED, num_experts=4, num_experts_per_tok=2),
    "phimoe": _made("PhimoeConfig", GROUPED, LOCAL),
    "granitemoe": _made("GraniteMoeConfig", GROUPED, LOCAL),
    "deepseek_v2": _made("DeepseekV2Config", SMALL, LATENT, ROUTED),
    "deepseek_v3": _made("DeepseekV3Config", SMALL, LATENT, ROUTED, num_key_value_heads=4),
    "glm4_moe": _made("Glm4MoeConfig", HEADS, ROUTED),
    "glm4_moe_lite": _made("Glm4MoeLiteConfig", SMALL, LATENT, ROUTED, num_key_value_heads=4),
    "llama4_text": _made(
        "Llama4TextConfig",
        HEADS,
        num_local_experts=4,
        num_experts_per_tok=1,
        intermediate_size_mlp=48,
    ),
    "ernie4_5_moe": _made(
        "Ernie4_5_MoeConfig",
        HEADS,
        moe_num_experts=4,
        moe_k=2,
        moe_intermediate_size=24,
        moe_num_shared_experts=1,
        moe_layer_start_index=0,
    ),
    "gpt_oss": _made("GptOssConfig", HEADS, LOCAL, MIXED),
    "jetmoe": _made(
        "JetMoeConfig",
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_key_value_heads=2,
        kv_channels=8,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    "dbrx": _made(
        "DbrxConfig",
        d_model=32,
        n_heads=4,
        n_layers=2,
        max_seq_len=128,
        attn_config={"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        ffn_config={"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    ),
    "qwen3_next": _made(
        "Qwen3NextConfig", HEADS, EXPERTS, LINEAR, shared_expert_intermediate_size=24
    ),
    "qwen3_5_text": _made("Qwen3_5TextConfig", HEADS, LINEAR),
    "lfm2": _made("Lfm2Config", GROUPED, layer_types=["conv", "full_attention"]),
    "lfm2_moe": _made(
        "Lfm2MoeConfig",
        GROUPED,
        EXPERTS,
        layer_types=["conv", "full_attention"],
        num_dense_layers=1,
    ),
    "bamba": _made("BambaConfig", GROUPED, MAMBA, attn_layer_indices=[1]),
    "granitemoehybrid": _made(
        "GraniteMoeHybridConfig",
        GROUPED,
        LOCAL,
        MAMBA,
        shared_intermediate_size=24,
        layer_types=["mamba", "attention"],
    ),
    "falcon_h1": _made("FalconH1Config", HEADS, MAMBA, mamba_d_ssm=64),
    "jamba": _made(
        "JambaConfig",
        GROUPED,
        num_experts=4,
        num_experts_per_tok=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_d_state=8,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    "nemotron_h": _made(
        "NemotronHConfig",
        HEADS,
        mamba_num_heads=8,
        mamba_head_dim=8,
        ssm_state_size=8,
        n_groups=1,
        chunk_size=8,
        layers_block_type=["mamba", "attention"],
    ),
    "zamba": _made(
        "ZambaConfig",
        SMALL,
        num_hidden_layers=4,
        num_key_value_heads=4,
        attention_head_dim=16,
        mamba_d_state=8,
        mamba_dt_rank=4,
        n_mamba_heads=2,
        layers_block_type=["mamba", "hybrid"] * 2,
        use_mamba_kernels=False,
    ),
    "zamba2": _made(
        "Zamba2Config",
        SMALL,
        num_hidden_layers=4,
        num_key_value_heads=4,
        mamba_d_state=8,
        mamba_headdim=8,
        mamba_ngroups=1,
        n_mamba_heads=8,
        chunk_size=8,
        layers_block_type=["mamba", "hybrid"] * 2,
        num_mem_blocks=1,
        use_mamba_kernels=False,
        use_shared_attention_adapter=False,
    ),
    "mamba": _made(
        "MambaConfig", hidden_size=32, num_hidden_layers=2, state_size=8, time_step_rank=4
    ),
    "falcon_mamba": _made(
        "FalconMambaConfig", hidden_size=32, num_hidden_layers=2, state_size=8, time_step_rank=4
    ),
    "mamba2": _made(
        "Mamba2Config",
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        num_heads=8,
        head_dim=8,
        n_groups=1,
        chunk_size=8,
    ),
    "recurrent_gemma": _made(
        "RecurrentGemmaConfig",
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        attention_window_size=8,
        lru_width=32,
    ),
    "rwkv": _made(
        "RwkvConfig",
        hidden_size=32,
        attention_hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=48,
        context_length=128,
    ),
    "xlstm": _made(
        "xLSTMConfig", hidden_size=32, num_hidden_layers=2, num_blocks=2, num_heads=4, chunk_size=8
    ),
}

QUICK = (
    "mistral",
    "gemma2",
    "opt",
    "falcon",
    "mpt",
    "qwen3_moe",
    "phimoe",
    "gpt_oss",
    "qwen3_next",
    "lfm2",
    "bamba",
    "zamba2",
    "mamba",
    "recurrent_gemma",
)
"""Those that every run of the tests takes: one for each kind of attention, positions, experts,
states and caches.
"""
LOUD = 6.0
"""What the matrices of attention and its like are multiplied by, so that a context that is read
wrongly shows in the logits.
"""


def save(folder: Path, kind: str) -> str:
    """Write the model and a tokenizer of bytes to `folder`, the same at every call; returns the
    folder as text.
    """
    set_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind]())
    for weight in model.parameters():
        if weight.ndim > 1 and weight.std() < 0.05:
            weight.data.mul_(LOUD)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def listed() -> str:
    """The types in the order of the alphabet, as docs/own-model.md names them."""
    return ", ".join(sorted(CONFIGS))
