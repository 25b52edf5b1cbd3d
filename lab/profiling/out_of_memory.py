"""The memory that the estimator expects of a run, for the message when it runs out."""

from lab.config.methods import METHODS, method_of
from lab.config.run_config import OnlineConfig
from lab.engine.llama import ARCHITECTURES
from lab.models.device import has_bfloat16
from lab.profiling.estimate import estimate_shape
from lab.training.state import TrainState

PROMPT = 64  # Tokens of a prompt, where what an online method needs is estimated.


def expected_memory(run: TrainState) -> str:
    """What `lab.profiling.estimate` says of one update whose every sequence is as long as it can
    be; empty for what it does not know.
    """
    config, shape = run.config, run.model.get_base_model().config
    if not METHODS[method_of(config)].estimated or shape.model_type not in ARCHITECTURES:
        return ""
    online = isinstance(config, OnlineConfig)
    prompt = PROMPT if online else 1
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "tie_word_embeddings",
    )
    found = estimate_shape(
        config.model,
        {name: getattr(shape, name) for name in names},
        method_of(config),
        batch_size=config.batch_size,
        prompt_tokens=prompt,
        completion_tokens=config.max_completion_tokens if online else config.max_length - prompt,
        group_size=getattr(config, "group_size", 1),
        full=False,
        lora_rank=config.lora_rank,
        bf16=has_bfloat16(run.device),
        checkpointing=config.gradient_checkpointing,
        layout=getattr(config, "model_layout", "shared"),
        micro_batches=min(config.micro_batches, config.batch_size),
    )
    prompts = f" with prompts of {PROMPT} tokens" if online else ""
    return (
        f" The estimator expects {found.peak / 2**30:.1f} GiB for an update of the longest"
        f" sequences{prompts}."
    )
