"""What large data costs: CPU seconds until the first update, seconds of an update, and the most
memory, for rows of chains.

python tests/measure_scale.py                 # 200,000 rows, and 2,000 beside them, for dpo, kto
and sft python tests/measure_scale.py 20000 dpo
"""

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, FEW, UPDATES = 200_000, 2_000, 50


def write(path: Path, count: int) -> None:
    """`count` preference pairs of the embedded model's vocabulary, with the right and a wrong
    scratchpad.
    """
    from lab.tasks.chain import draw, scratchpad

    state = random.Random("rows")
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            problem = draw(state, held_out=False)
            right, wrong = (
                scratchpad(problem.prompt),
                str((int(problem.answer) + state.randint(1, 98)) % 100),
            )
            row = {
                "prompt": problem.prompt,
                "chosen": right,
                "rejected": right.rpartition(">")[0] + ">" + wrong,
            }
            file.write(json.dumps(row) + "\n")


def used() -> tuple[float, float]:
    """CPU seconds of this process so far, and its most memory in GB."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return (
        found.ru_utime + found.ru_stime,
        found.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9,
    )


def measure(method: str, path: str) -> dict[str, float]:
    """Train this method for a few updates, from the import of the lab on."""
    from lab.config.methods import make_config
    from lab.models.loading import fitting_threads
    from lab.runs.records import StepRecord
    from lab.training.loop import prepare, train

    run = prepare(
        make_config(method, {"data": path, "device": "cpu", "eval_every": 0, "steps": UPDATES})
    )
    times, first, last = [], 0.0, 0.0
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord):
                now = time.process_time()
                if record.step == 1:
                    first = used()[0]
                elif record.step > 1:
                    times.append(now - last)
                last = now
    return {
        "seconds until the first update is done": first,
        "seconds of an update, mean": statistics.mean(times),
        "GB at most": used()[1],
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:4])))
        raise SystemExit
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as folder:
        for count in (FEW, rows):
            data = Path(folder) / f"{count}.jsonl"
            write(data, count)
            for name in sys.argv[2:] or ("dpo", "kto", "sft"):
                done = subprocess.run(
                    [sys.executable, __file__, "--one", name, str(data)],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                said = ", ".join(
                    f"{key} {value:.3g}" for key, value in json.loads(done.stdout).items()
                )
                print(
                    f"{name:4} {count:7,} rows, {data.stat().st_size / 1e6:5.1f} MB: {said}",
                    flush=True,
                )
