"""The training loop: its state, rollouts, evaluation, and the process that drives a run folder."""
