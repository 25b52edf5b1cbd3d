"""The papers' formulas: losses, advantages, log-probabilities and KL. Torch and nothing else."""
