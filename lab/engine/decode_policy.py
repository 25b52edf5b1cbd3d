"""How decoding trades checks and copies for speed, on each type of device."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecodePolicy:
    """How often decoding checks for rows that have ended, and which shapes a step may have.

    `eos_check_interval` counts tokens. With `use_cuda_graphs` every shape costs one captured graph,
    so shapes are few: the attended columns grow in large steps, and when rows leave, a power of two
    stays. Without, a step attends only to the filled columns.
    """

    eos_check_interval: int
    use_cuda_graphs: bool

    def attended_columns(self, filled: int) -> int:
        """Return how many cache columns a step attends to when `filled` are filled: a multiple of
        128, or of a larger power of two for long texts.
        """
        multiple = 1 << max(7, filled.bit_length() - 3)
        return -(-filled // multiple) * multiple if self.use_cuda_graphs else filled

    def rows_to_keep(self, alive: int, rows: int) -> int:
        """Return how many of `rows` rows to go on with when `alive` of them have not ended: fewer
        only if that saves at least a quarter, which pays for copying the cache.
        """
        fewer = max(16, 1 << (alive - 1).bit_length()) if self.use_cuda_graphs else alive
        return fewer if fewer <= 0.75 * rows else rows


DECODE_POLICIES = {
    "cpu": DecodePolicy(eos_check_interval=2, use_cuda_graphs=False),
    "cuda": DecodePolicy(eos_check_interval=16, use_cuda_graphs=True),
}
"""The decode policy of each device type."""
