"""Measure large preference files: CPU seconds until the first update is done, seconds of an update,
and the most memory.

    python tests/measure_scale.py                       # 200,000 rows of 300 bytes, plain and chat
    python tests/measure_scale.py 20000 --kinds chat --methods dpo

The rows hold random words. A random model of a few thousand weights trains on them, so that
reading, tokenising and batching are what is measured. The same number of updates on 2,000 rows
stands beside the result. `chat` rows are conversations, which the chat template renders.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FEW_ROWS, UPDATES, ROW_BYTES = 2_000, 50, 300


def write_rows(path: Path, count: int, kind: str) -> None:
    """Write `count` preference pairs of about `ROW_BYTES` bytes each, as plain text or as chat."""
    source = random.Random("rows")
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(5000)]
    keys = 43 if kind == "plain" else 190  # Bytes of a row beside its words.
    texts = max(3, (ROW_BYTES - keys) // 6)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            chosen = source.choices(words, k=texts)
            third = texts // 3
            parts = [" ".join(chosen[i * third : (i + 1) * third]) for i in range(3)]
            row = dict(zip(("prompt", "chosen", "rejected"), parts))
            if kind == "chat":
                row = {
                    name: [{"role": "user" if name == "prompt" else "assistant", "content": text}]
                    for name, text in row.items()
                }
            file.write(json.dumps(row) + "\n")


def used() -> tuple[float, float]:
    """CPU seconds of this process so far, and its most memory in GB."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e9


def measure(method: str, data: str, model: str) -> dict[str, float]:
    """Train `method` for `UPDATES` updates; the seconds count from the start of this process."""
    from lab.config.methods import make_config
    from lab.models.loading import fitting_threads
    from lab.runs.records import StepRecord
    from lab.training.loop import prepare, train

    settings = {"data": data, "model": model, "device": "cpu", "eval_every": 0, "steps": UPDATES}
    run = prepare(make_config(method, settings | {"max_length": 512}))
    times, first, before = [], 0.0, 0.0
    with fitting_threads(run.model):
        for record in train(run):
            if isinstance(record, StepRecord):
                now = time.process_time()
                if record.step == 1:
                    first = used()[0]
                elif record.step > 1:
                    times.append(now - before)
                before = now
    return {
        "CPU seconds until the first update is done": first,
        "CPU seconds of an update, mean": statistics.mean(times),
        "GB at most": used()[1],
    }


def main() -> None:
    """Measure every kind of rows with every method, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("rows", type=int, nargs="?", default=200_000)
    parser.add_argument("--kinds", default="plain,chat")
    parser.add_argument("--methods", default="dpo,kto")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(*asked.one)))
        return
    from support.tiny import save

    with tempfile.TemporaryDirectory() as folder:
        model = save(Path(folder) / "model")
        for kind in asked.kinds.split(","):
            for count in (FEW_ROWS, asked.rows):
                data = Path(folder) / f"{kind}-{count}.jsonl"
                write_rows(data, count, kind)
                for method in asked.methods.split(","):
                    command = [sys.executable, __file__, "--one", method, str(data), model]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    numbers = json.loads(done.stdout)
                    text = ", ".join(f"{key} {value:.3g}" for key, value in numbers.items())
                    size = data.stat().st_size / 1e6
                    print(
                        f"{method:4} {kind:5} {count:7,} rows, {size:5.1f} MB: {text}", flush=True
                    )


if __name__ == "__main__":
    main()
