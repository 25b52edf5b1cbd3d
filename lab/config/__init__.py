"""The settings of a run: one frozen dataclass per method, presets, sweeps. No torch."""
