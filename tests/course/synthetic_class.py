"""A class of made-up learners: honest ones, who write a formula in one of several ways, with names of
their own and sometimes a mistake, and eight who cheat, each in another way.

Run as a program, it grades 30 of them: python tests/course/synthetic_class.py FOLDER
"""

import json
import os
import random
import re
import sys
import time
from pathlib import Path

import nbformat

NAMES = {
    "a": ["ratio", "gain", "up", "first", "won", "left"],
    "b": ["other", "down", "second", "lost", "right", "rest"],
    "c": ["out", "result", "total", "answer", "acc", "res"],
    "i": ["t", "i", "k", "step", "pos", "idx"],
}
IMPORTS = (
    "import torch\nfrom torch.nn.functional import logsigmoid\nfrom lab.course.check import check"
)
STYLES = {
    "my_dpo_loss": [
        "def my_dpo_loss(cw, cl, rw, rl, beta):\n    return -logsigmoid(beta * ((cw - rw) - (cl - rl)))",
        "def my_dpo_loss(cw, cl, rw, rl, beta):\n    {a} = cw - rw\n    {b} = cl - rl\n"
        "    return -logsigmoid(beta * ({a} - {b}))",
        "def my_dpo_loss(cw, cl, rw, rl, beta):\n    {c} = beta * (cw - cl - rw + rl)\n"
        "    return torch.log(1 + torch.exp(-{c}))",
        "def my_dpo_loss(cw, cl, rw, rl, beta):\n    {a} = cw - cl\n    {b} = rw - rl\n"
        "    return torch.nn.functional.softplus(beta * ({b} - {a}))",
    ],
    "my_gae": [
        "def my_gae(rewards, values, gamma, lam):\n    {c} = torch.zeros_like(values)\n    {a} = 0.0\n"
        "    for {i} in reversed(range(len(values))):\n"
        "        {b} = values[{i} + 1] if {i} + 1 < len(values) else 0.0\n"
        "        {a} = rewards[{i}] + gamma * {b} - values[{i}] + gamma * lam * {a}\n"
        "        {c}[{i}] = {a}\n    return {c}",
        "def my_gae(rewards, values, gamma, lam):\n    {b} = torch.cat([values[1:], values.new_zeros(1)])\n"
        "    {a} = rewards + gamma * {b} - values\n    {c} = []\n"
        "    for {i} in range(len({a})):\n"
        "        {c}.append(sum((gamma * lam) ** j * d for j, d in enumerate({a}[{i}:])))\n"
        "    return torch.stack({c})",
        "def my_gae(rewards, values, gamma, lam):\n    {c}, {a}, n = [], 0.0, len(values)\n"
        "    {i} = n - 1\n    while {i} >= 0:\n        {b} = rewards[{i}] - values[{i}]\n"
        "        if {i} < n - 1:\n            {b} = {b} + gamma * values[{i} + 1]\n"
        "        {a} = {b} + gamma * lam * {a}\n        {c}.insert(0, {a})\n        {i} -= 1\n"
        "    return torch.stack({c})",
        "def my_gae(rewards, values, gamma, lam):\n    n = len(values)\n    {a} = values.clone()\n"
        "    {a}[:-1] = values[1:]\n    {a}[-1] = 0\n    {b} = rewards + gamma * {a} - values\n"
        "    {c} = torch.tensor([[(gamma * lam) ** (q - p) if q >= p else 0.0 for q in range(n)]"
        " for p in range(n)], dtype=values.dtype)\n    return {c} @ {b}",
    ],
    "my_group_advantages": [
        "def my_group_advantages(rewards, group_size):\n    {a} = rewards.reshape(-1, group_size)\n"
        "    {b} = {a}.mean(1, keepdim=True)\n    {c} = {a}.std(1, keepdim=True)\n"
        "    return (({a} - {b}) / ({c} + 1e-4)).reshape(-1)",
        "def my_group_advantages(rewards, group_size):\n    {c} = []\n"
        "    for {i} in range(0, len(rewards), group_size):\n"
        "        {a} = rewards[{i}:{i} + group_size]\n"
        "        {c}.append(({a} - {a}.mean()) / ({a}.std() + 0.0001))\n    return torch.cat({c})",
        "def my_group_advantages(rewards, group_size):\n    {a} = rewards.view(-1, group_size)\n"
        "    {b} = {a} - {a}.sum(1)[:, None] / group_size\n"
        "    {c} = ({b}.pow(2).sum(1) / (group_size - 1)).sqrt()[:, None]\n"
        "    return ({b} / ({c} + 1e-4)).flatten()",
    ],
    "my_reduction": [
        "def my_reduction(losses, mask, kind, longest):\n    {a} = losses * mask\n"
        '    if kind == "sequence_mean":\n        return ({a}.sum(1) / mask.sum(1)).mean()\n'
        '    if kind == "token_mean":\n        return {a}.sum() / mask.sum()\n'
        "    return {a}.sum() / (losses.shape[0] * longest)",
        "def my_reduction(losses, mask, kind, longest):\n    {c} = []\n"
        "    for {a}, {b} in zip(losses, mask):\n        {c}.append({a}[{b}])\n"
        '    if kind == "sequence_mean":\n        return sum(x.mean() for x in {c}) / len({c})\n'
        '    if kind == "token_mean":\n        return torch.cat({c}).mean()\n'
        "    return torch.cat({c}).sum() / len({c}) / longest",
        "def my_reduction(losses, mask, kind, longest):\n    {b} = mask.double()\n"
        "    {a} = torch.where(mask, losses, 0.0)\n    {c} = {{\n"
        '        "sequence_mean": ({a}.sum(1) / {b}.sum(1)).mean(),\n'
        '        "token_mean": {a}.sum() / {b}.sum(),\n'
        '        "fixed_length": {a}.sum(1).mean() / longest,\n    }}\n    return {c}[kind]',
    ],
}
HABITS = (
    ("gamma * lam", "lam * gamma"),
    (".reshape(-1, group_size)", ".view(-1, group_size)"),
    ("reversed(range(len(values)))", "range(len(values) - 1, -1, -1)"),
    ("losses * mask", "mask * losses"),
    (".mean(1, keepdim=True)", ".mean(dim=1, keepdim=True)"),
    (".std(1, keepdim=True)", ".std(dim=1, keepdim=True)"),
    ("1e-4", "10**-4"),
    (".sum(1)", ".sum(dim=1)"),
    (".flatten()", ".reshape(-1)"),
    ("torch.stack(", "torch.stack(tensors="),
    ("losses.shape[0]", "len(losses)"),
    ("if {i} + 1 < len(values)", "if {i} < len(values) - 1"),
)
"""Two ways to write the same, of which a learner has one."""
SLIPS = {"my_dpo_loss": ("beta * ", "1.0 * "), "my_gae": ("gamma * lam", "gamma")}


def write_notebook(path: Path, functions: dict[str, str]) -> None:
    """A notebook with a cell for the imports and one for each function, followed by its check."""
    cells = [nbformat.v4.new_code_cell(IMPORTS)]
    cells += [nbformat.v4.new_code_cell(f"{s}\n\n\ncheck({n})") for n, s in functions.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def honest(number: int, slip: str = "") -> dict[str, str]:
    """The functions of an honest learner, with a mistake in `slip`."""
    draw = random.Random(number)
    functions = {}
    for name, styles in STYLES.items():
        words = {place: draw.choice(options) for place, options in NAMES.items()}
        source = draw.choice(styles)
        for one, other in HABITS:
            source = source.replace(one, draw.choice((one, other)))
        source = source.format(**words)
        if name == slip:
            source = source.replace(*SLIPS[name]).replace("lam * gamma", "gamma")
        functions[name] = f"{source}  # {draw.choice(NAMES['c'])}"
    return functions


LAB_FUNCTION = """from lab.algorithms.losses import dpo_loss


def my_dpo_loss(*logps_and_beta):
    return dpo_loss(*logps_and_beta[:4], beta=logps_and_beta[4])[0]"""
HIDDEN = """def my_dpo_loss(cw, cl, rw, rl, beta):
    import importlib
    losses = importlib.import_module("l" + "ab.algorithms.losses")
    return losses.dpo_loss(cw, cl, rw, rl, beta=beta)[0]"""
CONSTANT = "def my_dpo_loss(*inputs):\n    return torch.full((5,), 0.6931, dtype=torch.float64)"


def solution(name: str) -> str:
    """The solution of an exercise that the lab's notebooks show."""
    for path in sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if "solution" in cell.metadata.get("tags", []) and f"def {name}(" in cell.source:
                return cell.source.partition("```python\n")[2].partition("\n```")[0]
    raise KeyError(name)


def renamed(source: str) -> str:
    """A function with other names of variables, arguments and torch, other comments and another layout."""
    name = re.search(r"def (\w+)", source)[1]
    inputs = re.search(r"\((.*?)\):", source, re.DOTALL)[1].replace("\n", " ").split(",")
    words = {name for names in NAMES.values() for name in names} | {"d", "j", "n", "p", "q"}
    words |= set(re.findall(r"(\w+)(?:, \w+)* = ", source)) | {word.strip() for word in inputs}
    words |= set(re.findall(r"(?:, )(\w+)(?=(?:, \w+)* = )", source))
    words -= {"keepdim", "dim", "dtype", "tensors", "return"}
    code, *_ = source.split("  # ")
    code = re.sub(
        r"(?<![.\w])\w+(?![\w(])", lambda m: f"my_{m[0]}" if m[0] in words else m[0], code
    )
    head, _, body = code.replace("torch", "th").partition(":\n")
    first = body[: len(body) - len(body.lstrip())]
    note = f'{first}"""Computes {name}."""\n{first}import torch as th  # first\n'
    return f"# {name}\n{head}:\n{note}{body}".replace("    ", "  ")


def write_class(folder: Path, honest_learners: int) -> dict[str, str]:
    """Write the class; return what is made up about each cheat, by name."""
    for number in range(honest_learners):
        slip = ("", "my_dpo_loss", "my_gae")[number % 3] if number % 5 == 0 else ""
        write_notebook(folder / f"learner{number:02d}" / "work.ipynb", honest(number, slip))
    pasted = {name: solution(name) for name in STYLES}
    made = {
        "copyist": honest(2),
        "renamer": {n: renamed(s) for n, s in honest(1).items()},
        "paster": pasted,
        "disguised": {n: renamed(s) for n, s in pasted.items()},
        "importer": honest(1001) | {"my_dpo_loss": LAB_FUNCTION},
        "smuggler": honest(1002) | {"my_dpo_loss": HIDDEN},
        "constant": honest(1003) | {"my_dpo_loss": CONSTANT},
        "forger": {"my_dpo_loss": "def my_dpo_loss(*inputs):\n    ..."},
    }
    for name, functions in made.items():
        write_notebook(folder / name / "work.ipynb", functions)
    rows = [{"time": "2026-01-02T03:04:05", "check": n, "passed": True} for n in STYLES]
    (folder / "forger" / "progress.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return {
        "copyist": "copies learner02",
        "renamer": "copies learner01 and renames variables, arguments and imports",
        "paster": "pastes the lab's solutions",
        "disguised": "pastes the lab's solutions and renames in them",
        "importer": "imports the lab's function",
        "smuggler": "imports the lab's function by a name that is put together",
        "constant": "returns a constant",
        "forger": "writes progress.jsonl by hand",
    }


def main() -> None:
    """Grade 22 honest learners and 8 cheats, and say who is passed or marked."""
    from lab.course.grading.grade import grade_folder

    folder = Path(sys.argv[1])
    cheats = write_class(folder, 22)
    start, cpu = time.perf_counter(), time.process_time()
    grades = grade_folder(folder, seed=19)
    children = os.times()
    print(
        f"{len(grades.learners())} learners, {time.perf_counter() - start:.0f} s,"
        f" {time.process_time() - cpu + children.children_user + children.children_system:.0f} s of CPU"
    )
    for learner, rows in grades.learners().items():
        written = [row for row in rows if row.result != "missing"]
        results = ", ".join(f"{row.exercise} {row.result}" for row in written if not row.passed)
        marks = "; ".join(f"{row.exercise}: {mark}" for row in rows for mark in row.marks)
        print(f"{learner:10} {cheats.get(learner, '')} | not passed: {results} | look at: {marks}")


if __name__ == "__main__":
    main()
