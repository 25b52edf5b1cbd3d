"""Where the heads of a token lie for attention on a CPU."""

from lab.data.packing import LengthBucket
from lab.engine.cpu_attention import head_slots


def test_slots_of_heads_by_hand():
    slots, output_slots = head_slots(
        [LengthBucket(2, slice(0, 4), 2), LengthBucket(1, slice(4, 5), 1)], 2, 1
    )
    assert slots.tolist() == [
        [0, 2, 8, 12],
        [1, 3, 9, 13],
        [4, 6, 10, 14],
        [5, 7, 11, 15],
        [16, 17, 18, 19],
    ]
    assert output_slots.tolist() == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 9]]
