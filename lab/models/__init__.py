"""The base model: load it, put LoRA on it, switch the adapter off for the reference, download it."""
