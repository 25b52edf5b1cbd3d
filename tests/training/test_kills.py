"""Kills at random moments, as `python tests/kills.py` makes many: a few of them here."""

import sys

import pytest
from kills import survive


@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")
@pytest.mark.parametrize("method", ["dpo", "ppo"])
def test_a_killed_run_loses_nothing_that_was_written_and_ends_as_if_it_had_not_been_killed(
    tmp_path, method
):
    said = []
    assert (
        sum(survive(method, tmp_path, 4, 0, said.append).values()) == 4
        and "4 kills survived" in said[0]
    )
