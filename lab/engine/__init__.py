"""The fast path, which a learner may skip: packed Llama passes, CUDA graphs, decoding."""
