"""Run folders made without training."""

from lab.config.methods import make_config
from lab.runs.folder import create
from lab.runs.records import Event, StepRecord
from lab.runs.states import EventKind
from lab.storage.jsonl import append_rows

EVIL = "</script><script>document.title='stolen'</script><img src=x onerror=\"document.title='stolen'\">"


def finished(root, name, **knobs):
    folder = create(root / name, make_config("dpo", knobs))
    folder.write_status("finished", 0)
    return folder


def recorded(root, name="mine", samples=(), steps=4, config=None):
    """A finished run with a change at update 2."""
    folder = create(root / name, make_config("grpo", {"steps": steps, "seed": 7} | (config or {})))
    rows = [
        StepRecord(i, {"reward": i / 8, "gold/accuracy": 0.25 * i}, float(i), i).row()
        for i in range(steps + 1)
    ]
    change = Event(2, EventKind.CHANGED, {"knob": "beta", "from": 0.1, "to": 0.02}, "a")
    append_rows(folder.path / "metrics.jsonl", [*rows[:3], change.row(), *rows[3:]])
    if samples:
        append_rows(folder.path / "samples.jsonl", samples)
    folder.write_status("finished", steps)
    return folder


def sample(step, index, text, **more):
    return {"step": step, "index": index, "prompt": text, "completion": text} | more
