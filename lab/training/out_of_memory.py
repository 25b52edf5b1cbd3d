"""The error message of a run that ran out of memory."""

import torch

from lab.config.run_config import OnlineConfig, RunConfig


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU, where torch raises a plain `RuntimeError`."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def out_of_memory_message(error: BaseException, config: RunConfig, expected: str) -> str:
    """Return a message with the error, the settings to lower in order, and the sentence `expected`
    about the memory that the estimator expects.
    """
    length = "max_completion_tokens" if isinstance(config, OnlineConfig) else "max_length"
    batch, tokens = getattr(config, "batch_size", 1), getattr(config, "tokens_per_batch", 0)
    steps = [
        (
            f"--micro-batches {min(batch, 2 * config.micro_batches)} or more (now"
            f" {config.micro_batches}; the update stays the same)"
            if config.micro_batches < batch
            else ""
        ),
        (
            "--gradient-checkpointing (the update stays the same)"
            if not config.gradient_checkpointing
            else ""
        ),
        f"a lower --{length.replace('_', '-')} (now {getattr(config, length)})",
        f"a lower --{'tokens-per-batch' if tokens else 'batch-size'} (now {tokens or batch})",
        "a smaller --model",
    ]
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return (
        f"Out of memory ({reason}). Try, in this order:"
        f" {'; '.join(step for step in steps if step)}.{expected}"
    )
