"""The process that waits for a run, as `lab.runs.standby` starts it: reads the path of a run from stdin
and trains it as `python -m lab train --resume` does, with its output in the run's log.txt.
"""

import os
import threading
from pathlib import Path

from lab.cli.main import main
from lab.runs.standby import IDLE_SECONDS


def load_libraries() -> None:
    """Import what training needs, and make one update of a small run in memory, because the first
    update of a process is slow.
    """
    import lab.profiling.out_of_memory
    import lab.training.driver
    import lab.training.progress_bar  # noqa: F401
    from lab.config.methods import METHODS, make_config
    from lab.distributed.cpu_threads import adapt_num_threads
    from lab.training.evaluation import evaluate
    from lab.training.loop import prepare, train_step

    run = prepare(make_config("grpo", {"batch_size": 8, "group_size": 4, "device": "cpu"}))
    adapt_num_threads()
    train_step(run, METHODS["grpo"], next(METHODS["grpo"].batches(run)))
    evaluate(run.model, run.tokenizer, run.task, prompts=2, max_tokens=8, seed=0, device=run.device)


def wait_for_run() -> None:
    """Train the run whose path arrives on stdin; end when stdin closes or nothing arrives in time."""
    timer = threading.Timer(IDLE_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()
    load_libraries()
    with open(0, encoding="utf-8", closefd=False) as line:  # `main` sets up sys.stdin before a read
        path = line.readline().rstrip("\n")
    timer.cancel()
    if not path:
        return
    with (Path(path) / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    main(["train", "--resume", "--out", path])


if __name__ == "__main__":
    wait_for_run()
