"""The fast path, which a learner may skip: packed Llama passes, chunked vocabulary, CUDA graphs,
Triton kernels, generation.
"""
