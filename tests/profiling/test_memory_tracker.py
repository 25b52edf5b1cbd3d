"""The memory tracker against bytes worked out by hand."""

import torch

from lab.profiling.memory_tracker import MemoryTracker


def test_the_tracker_counts_a_storage_once_from_its_birth_to_its_death():
    with MemoryTracker() as tracker:
        a = torch.zeros(1000)
        view = a[10:].view(-1, 2)
        b = torch.zeros(500, dtype=torch.float64)
        assert tracker.now["activations"] == 8000
        del a
        assert tracker.now["activations"] == 8000, "a view still holds the storage"
        del view
        assert tracker.now["activations"] == 4000
        tracker.count_as("weights", b)
        assert (tracker.now["weights"], tracker.now["activations"]) == (4000, 0)
    assert sum(tracker.peak.values()) == 8000
