"""Engines that sample rollouts: the lab's own, transformers' continuous batching, a vLLM server."""
