"""A teaching lab in which language models learn from preferences: real LoRA runs of DPO, IPO, KTO,
GRPO and the RLHF they replace.
"""
