"""A cheap fingerprint of the weights in a model folder, to notice that they have changed."""

import hashlib
from pathlib import Path

HEADER_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header as a little-endian integer."""
MAX_HEADER_BYTES = 100 * 2**20
"""safetensors itself refuses a longer header."""
NUM_SAMPLES, SAMPLE_BYTES = 256, 4096
"""Blocks of weights that are read of each file, spread evenly, and their size."""


def weights_fingerprint(folder: Path) -> str:
    """Returns a SHA-256 over the weights files of a folder; empty where it has none.

    Of each file it covers the name, the size, the header of safetensors (names, shapes and dtypes
    of all tensors) and `NUM_SAMPLES` blocks of the weights. So a model of any size takes
    milliseconds, and training any part of a model that the blocks touch changes the result.
    """
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as weights:
            length = int.from_bytes(weights.read(HEADER_LENGTH_BYTES), "little")
            digest.update(weights.read(min(length, MAX_HEADER_BYTES)))
            first = weights.tell()
            step = max(SAMPLE_BYTES, (size - first) // NUM_SAMPLES)
            for position in range(first, size, step):
                weights.seek(position)
                digest.update(weights.read(SAMPLE_BYTES))
    return digest.hexdigest() if files else ""
