"""The lab: DPO, IPO, KTO, GRPO and RLHF as real LoRA training, with pages that show it."""
