"""What GPUs before Ampere compute in, decided from the compute capability, which is faked here."""

import pytest
import torch

from lab.config.methods import make_config
from lab.data.packing import pack
from lab.engine import triton_kernels
from lab.engine.triton_kernels import on_gpu
from lab.engine.varlen_attention import causal_attention
from lab.models import device, loading
from lab.models import device as devices
from lab.models.device import compute_dtype, has_bfloat16
from lab.models.loading import load_policy
from lab.training.compatibility import compatibility_notes

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
CARDS = {"V100": (7, 0), "T4": (7, 5), "A100": (8, 0), "L4": (8, 9), "H100": (9, 0)}
OLD = ["V100", "T4"]


@pytest.fixture(params=CARDS)
def card(request, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda index=None: CARDS[request.param])
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    devices.capability.cache_clear()
    yield request.param
    devices.capability.cache_clear()


class OnCuda:
    """Says of a tensor that it lies on a GPU."""

    is_cuda, device = True, CUDA


def test_bfloat16_and_the_kernels_begin_with_ampere(card, monkeypatch):
    monkeypatch.setattr(triton_kernels, "triton", object())
    new = card not in OLD
    assert has_bfloat16(CUDA) == has_bfloat16(torch.device("cuda")) == new
    assert compute_dtype(CUDA) == (torch.bfloat16 if new else torch.float32)
    assert on_gpu(OnCuda()) == new


def test_the_cpu_computes_in_float32_whatever_card_is_there(card):
    assert (
        not has_bfloat16(CPU) and compute_dtype(CPU) == torch.float32 and not on_gpu(torch.ones(1))
    )


def test_autocast_and_weights_and_4_bits_take_the_dtype_of_the_card(card, monkeypatch):
    monkeypatch.setattr("lab.models.loading.find_spec", lambda name: True)
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda *given: asked.append(given))
    device.autocast(CUDA)
    assert asked == ([("cuda", torch.bfloat16)] if card not in OLD else [])
    assert loading._weights(CUDA, None)["dtype"] == compute_dtype(CUDA)
    assert loading._weights(CUDA, "4bit")[
        "quantization_config"
    ].bnb_4bit_compute_dtype == compute_dtype(CUDA)


def test_the_flash_kernel_is_for_new_cards(card, monkeypatch):
    called = []
    module = "lab.engine.varlen_attention"
    monkeypatch.setattr(
        f"{module}._attend_bucket", lambda *given: called.append("padded") or given[2]
    )
    monkeypatch.setattr(
        f"{module}.causal_varlen_attention", lambda *given: called.append("flash") or given[0]
    )
    monkeypatch.setattr(f"{module}.has_bfloat16", lambda device: has_bfloat16(CUDA))
    mask = torch.tensor([[False, True, True]])
    packed = pack(torch.tensor([[1, 2, 3]]), mask)

    class Half(torch.Tensor):
        device = CUDA

    q = torch.zeros(3, 2, 8, dtype=torch.bfloat16).as_subclass(Half)
    causal_attention(packed)(q, q, q)
    assert called == (["padded"] if card in OLD else ["flash"])


def test_a_run_on_an_old_card_says_that_it_takes_twice_the_memory(card):
    config = make_config("dpo", {"device": "cpu"})
    said = compatibility_notes(load_policy(config, CPU), config, CUDA, 20)
    number = ".".join(map(str, CARDS[card]))
    assert said == (
        [
            f"This GPU has compute capability {number}: bfloat16 and the fast kernels need 8.0, so"
            " the model is held and trained in float32, in twice the memory. --quantization 4bit"
            " takes less."
        ]
        if card in OLD
        else []
    )
