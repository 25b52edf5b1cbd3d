"""How many threads small tensors get: two where a core is free, one where others compute, and what
the user asked for in any case.
"""

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import lab.distributed.cpu_threads
from lab.distributed.cpu_threads import (
    IdleCoreMonitor,
    adapt_num_threads,
    cpu_quota,
    few_threads,
    restart_monitor,
)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Two cores whose clocks the test turns: (seconds passed, idle seconds of both, seconds of this
    process).
    """
    clocks = [0.0, 0.0, 0.0]

    def turn(*more):
        clocks[:] = [a + b for a, b in zip(clocks, more)]

    monkeypatch.setattr(
        lab.distributed.cpu_threads.psutil,
        "cpu_times",
        lambda: SimpleNamespace(user=1.0, idle=clocks[1], iowait=0.0),
    )
    monkeypatch.setattr(lab.distributed.cpu_threads, "QUOTA_FILE", tmp_path / "quota")
    monkeypatch.setattr(lab.distributed.cpu_threads, "_MONITOR", IdleCoreMonitor())
    monkeypatch.setattr(
        lab.distributed.cpu_threads.os, "sched_getaffinity", lambda process: {0, 1}, raising=False
    )
    monkeypatch.setattr(lab.distributed.cpu_threads.time, "monotonic", lambda: clocks[0])
    monkeypatch.setattr(lab.distributed.cpu_threads.time, "process_time", lambda: clocks[2])
    monkeypatch.delenv("OMP_NUM_THREADS")
    return turn


@pytest.mark.parametrize(
    "idle, own, threads",
    [(1.0, 1.0, 2), (0.0, 2.0, 2), (0.0, 1.0, 1), (0.4, 1.0, 1), (0.8, 1.0, 2)],
)
def test_a_second_thread_is_taken_where_others_leave_a_core(machine, idle, own, threads):
    before = torch.get_num_threads()
    with few_threads():
        assert torch.get_num_threads() == 1, "nothing is known yet"
        machine(1.0, idle, own)
        adapt_num_threads()
        assert torch.get_num_threads() == threads
        machine(0.1, 0.0, 0.0)
        adapt_num_threads()
        assert torch.get_num_threads() == threads, "too soon to tell"
        machine(1.0, 0.0, 1.0)
        adapt_num_threads()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    adapt_num_threads()
    assert torch.get_num_threads() == before


def test_what_others_did_before_it_was_forgotten_does_not_count(machine):
    with few_threads():
        machine(1.0, 1.0, 1.0)
        adapt_num_threads()
        machine(9.0, 0.0, 0.0)
        restart_monitor()
        adapt_num_threads()
        assert torch.get_num_threads() == 2, "what was last known"
        machine(1.0, 0.0, 1.0)
        adapt_num_threads()
        assert torch.get_num_threads() == 1


def test_what_the_user_asks_for_is_taken(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with few_threads():
        assert torch.get_num_threads() == 3


def test_where_nothing_says_what_others_do_there_is_one_thread(machine, monkeypatch):
    def unreadable():
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(lab.distributed.cpu_threads.psutil, "cpu_times", unreadable)
    with few_threads():
        machine(1.0, 2.0, 0.0)
        adapt_num_threads()
        assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "quota, cores",
    [
        ("max 100000", 2),
        ("100000 100000", 1),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("800000 100000", 2),
    ],
)
def test_a_containers_quota_counts(machine, tmp_path, quota, cores):
    (tmp_path / "quota").write_text(quota)
    assert cpu_quota() == cores


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is asked")
def test_memory_that_was_freed_serves_again_without_the_kernel():
    """In a process of its own: what other tests have freed decides where 20 MB find room."""
    script = """
import resource, torch
from lab.distributed.cpu_threads import retain_freed_memory

def update():
    held = [torch.ones(500_000) for _ in range(10)]  # 20 MB, or 4,900 pages.
    return len(held)

def faults_of_five_updates():
    update()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        update()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults_of_five_updates()
retain_freed_memory()
print(usual, faults_of_five_updates())
"""
    usual, retained = map(int, subprocess.check_output([sys.executable, "-c", script]).split())
    assert retained < 0.1 * usual, (usual, retained)
