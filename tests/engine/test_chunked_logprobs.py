"""Statistics of tokens, computed in chunks, against whole logits."""

import pytest
import torch

import lab.engine.chunked_logprobs
from lab.algorithms.kl import exact_kl
from lab.algorithms.logprobs import token_entropy, token_logps
from lab.engine.chunked_logprobs import chunked_token_statistics


def test_chunks_of_tokens_give_what_whole_logits_give(monkeypatch):
    noise = torch.Generator().manual_seed(0)
    hidden, other, head = (
        torch.randn(*shape, generator=noise, dtype=torch.float64)
        for shape in ((7, 5), (7, 5), (11, 5))
    )
    hidden.requires_grad_(True)
    targets = torch.randint(0, 11, (7,), generator=noise)
    ids = torch.cat([torch.zeros(1, dtype=torch.long), targets])[None]
    monkeypatch.setattr(
        lab.engine.chunked_logprobs, "MAX_CHUNK_LOGITS", 33
    )  # three tokens at a time

    def logits(states):
        return torch.cat([states @ head.T, torch.zeros(1, 11, dtype=torch.float64)])[None] / 0.7

    ours = chunked_token_statistics(hidden, head, targets, 0.7, reference=other, entropy=True)
    expected = token_logps(logits(hidden), ids)[0, 1:]
    for mine, theirs in (
        (ours.logps, expected),
        (ours.entropy, token_entropy(logits(hidden))[0, 1:]),
        (ours.reference_logps, token_logps(logits(other), ids)[0, 1:]),
        (ours.kl, exact_kl(logits(hidden), logits(other))[0, 1:]),
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    weight = torch.linspace(-1, 2, 7, dtype=torch.float64)
    (mine,), (theirs,) = (
        torch.autograd.grad((logps * weight).sum(), hidden) for logps in (ours.logps, expected)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
@pytest.mark.parametrize("vocabulary", [40, 1024, 5000])
def test_the_fused_kernel_on_a_gpu_gives_what_torch_gives_on_the_cpu(vocabulary, monkeypatch):
    monkeypatch.setattr(lab.engine.chunked_logprobs, "MAX_CHUNK_LOGITS_FUSED", 3 * vocabulary)
    noise, found = torch.Generator().manual_seed(0), []
    hidden, head = (torch.randn(*shape, generator=noise) for shape in ((7, 16), (vocabulary, 16)))
    targets = torch.randint(0, vocabulary, (7,), generator=noise)
    for device in ("cpu", "cuda"):
        leaf = hidden.to(device).requires_grad_()
        out = chunked_token_statistics(leaf, head.to(device), targets.to(device), 0.7, entropy=True)
        found.append(
            (
                out.logps,
                out.entropy,
                *torch.autograd.grad(
                    (out.logps * torch.linspace(-1, 2, 7, device=device)).sum(), leaf
                ),
            )
        )
    for theirs, ours in zip(*found):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-5)
