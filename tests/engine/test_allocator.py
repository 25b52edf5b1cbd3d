"""Sampling allocates its cache by the allocator that it is given, and samples equal tokens with any."""

from test_decoding import draw
from test_likelihood import SHAPES, policy
from transformers import GPTNeoXConfig

from lab.engine.allocator import Allocator

OTHER_ARCHITECTURE = GPTNeoXConfig(
    vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
)


class RecordingAllocator(Allocator):
    """Remembers the kind and the shape of every tensor."""

    def __init__(self):
        self.allocated, self.registered = [], []

    def allocate(self, kind, *shape, like):
        self.allocated.append((kind, shape))
        return super().allocate(kind, *shape, like=like)

    def register(self, kind, *tensors):
        self.registered += [(kind, tuple(tensor.shape)) for tensor in tensors]


def test_a_static_cache_is_allocated_once_for_all_rows_layers_and_tokens():
    model, allocator = policy(SHAPES["llama"]), RecordingAllocator()
    completions = draw(model, ["7+5="], 3, max_tokens=6, allocator=allocator)
    assert completions.texts == draw(model, ["7+5="], 3, max_tokens=6).texts
    config = model.get_base_model().config
    head_dim = config.hidden_size // config.num_attention_heads
    shape = (config.num_hidden_layers, 2, 3, config.num_key_value_heads, 4 + 6, head_dim)
    assert allocator.allocated == [("cache", shape)] and not allocator.registered


def test_every_growth_of_transformers_cache_is_registered():
    model, allocator = policy(OTHER_ARCHITECTURE), RecordingAllocator()
    options = {"prompts": ["7+5=", "9"], "group_size": 2, "max_tokens": 3, "temperature": 0.0}
    completions = draw(model, **options, allocator=allocator)
    assert completions.texts == draw(model, **options).texts
    kinds, shapes = zip(*allocator.registered)
    assert set(kinds) == {"cache"} and not allocator.allocated
    assert shapes[:4] == ((2, 2, 4, 16),) * 4, "two prompts, keys and values of two layers"
    assert {shape[2] for shape in shapes} >= {4, 5}, "one entry more for every token"
