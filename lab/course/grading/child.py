"""The process that runs a learner's functions: it is started as a file of its own and imports nothing of
the lab. Requests and answers are lines of JSON; the right answers are never sent here.

The limits hold off shortcuts and accidents. They are no wall against an attacker: grade on an account
that has nothing to lose.
"""

import json
import linecache
import math
import numbers
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

MAX_NUMBERS = 1_000_000
"""The most numbers in an answer."""
MAX_TEXT = 100_000
BLOCKED_PACKAGES = ("lab", "alab")
BLOCKED_EVENTS = (
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill",
    "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown",
    "os.truncate", "shutil.", "socket.", "ctypes.", "urllib.", "http.client.", "webbrowser.",
    "pty.", "gc.get_", "object.__setattr__",
)  # fmt: skip
"""Beginnings of the names of audit events that end in an error."""
NUMBER_TYPES = (
    "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool",
)  # fmt: skip
SOURCE_NAME = "<learner>"


def encode(value: Any) -> list[Any]:
    """Return a value as JSON: None, text, numbers, tensors, arrays, and lists or tuples of them. Of any
    other value only the name of its type is kept.
    """
    if value is None:
        return ["none"]
    if isinstance(value, bool | np.bool_):
        return ["bool", bool(value)]
    if isinstance(value, str):
        return ["text", value[:MAX_TEXT]]
    if isinstance(value, numbers.Integral):
        return ["int", int(value)]
    if isinstance(value, numbers.Real):
        return ["float", float(value)]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.ascontiguousarray(value.astype(np.float64)))
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        if kind not in NUMBER_TYPES or value.numel() > MAX_NUMBERS:
            return ["other", f"tensor of {value.numel()} numbers of type {kind}"]
        flat = value.detach().cpu().flatten().tolist()
        return ["tensor", kind, list(value.shape), flat, value.requires_grad]
    if isinstance(value, list | tuple) and len(value) <= MAX_NUMBERS:
        return ["tuple" if isinstance(value, tuple) else "list", [encode(v) for v in value]]
    return ["other", type(value).__name__]


def decode(coded: Any) -> Any:
    """Return the value that `encode` wrote; raise `ValueError` for anything else."""
    match coded:
        case ["none"]:
            return None
        case ["bool", bool(value)] | ["text", str(value)] | ["int", int(value)]:
            return value
        case ["float", float(value) | int(value)]:
            return float(value)
        case ["tensor", str(kind), list(shape), list(flat), bool(grad)] if kind in NUMBER_TYPES:
            if math.prod(shape) != len(flat) or len(flat) > MAX_NUMBERS:
                raise ValueError("a tensor whose shape does not fit its numbers")
            tensor = torch.tensor(flat, dtype=getattr(torch, kind)).reshape(shape)
            return tensor.requires_grad_() if grad and tensor.is_floating_point() else tensor
        case ["tuple", list(values)]:
            return tuple(decode(v) for v in values)
        case ["list", list(values)]:
            return [decode(v) for v in values]
        case ["other", str(name)]:
            return type(name if name.isidentifier() else "object", (), {})()
    raise ValueError("an answer that cannot be read")


def limit_resources(memory_mib: int, seconds: float) -> str:
    """Limit memory, processor time and the size of files from now on; return what cannot be limited
    here, in words, or "".
    """
    try:
        import resource
    except ImportError:
        return "memory is not limited on Windows"
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _lower(resource, resource.RLIMIT_CPU, math.ceil(used + seconds))
    _lower(resource, resource.RLIMIT_FSIZE, 2**20)
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return "memory is not limited on this system"
    size = int(statm.read_text().split()[0]) * resource.getpagesize()
    return _lower(resource, resource.RLIMIT_AS, size + memory_mib * 2**20)


def _lower(resource: Any, what: int, value: int) -> str:
    """Set a soft limit, which may be raised again up to the hard limit for the next function."""
    hard = resource.getrlimit(what)[1]
    try:
        resource.setrlimit(what, (value if hard < 0 else min(value, hard), hard))
    except (OSError, ValueError) as error:
        return f"a limit could not be set: {error}"
    return ""


class BlockedFinder:
    """Refuses to import the lab, so that a learner reads why."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise for a blocked package; leave every other to Python."""
        if name.split(".")[0] in BLOCKED_PACKAGES:
            raise ModuleNotFoundError(f"{name} is not there when a function is graded")


def guard(folder: Path, denied: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook: it lets the process read Python's own folders and `folder`, and write
    `folder` only; no other process, no network.
    """
    clean = [p for p in sys.path if p and os.path.realpath(p) not in map(os.path.dirname, denied)]
    own = os.path.realpath(folder) + os.sep
    roots = [sys.prefix, sys.base_prefix, *clean, *(p for p in sys.path if "-packages" in p)]
    readable = (*(os.path.realpath(p) + os.sep for p in roots), own, "/proc/", "/sys/", "/dev/null")
    hidden = tuple(os.path.realpath(p) + os.sep for p in denied)
    writing = os.O_WRONLY | os.O_RDWR

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(BLOCKED_EVENTS):
            raise PermissionError(f"{event} is not allowed when a function is graded")
        if event == "open" and not isinstance(arguments[0], int):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            mode = arguments[1] or ""
            writes = any(c in mode for c in "wax+") or (arguments[2] or 0) & writing
            allowed = path.startswith((own, os.devnull) if writes else readable)
            if not allowed or path.startswith(hidden) and not path.startswith(own):
                raise PermissionError(f"{path} may not be opened when a function is graded")

    return hook


def load(source: str, name: str) -> Callable[..., Any]:
    """Return the function `name` of a learner's code."""
    linecache.cache[SOURCE_NAME] = (len(source), None, source.splitlines(True), SOURCE_NAME)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, SOURCE_NAME, "exec"), names)
    function = names[name]
    if not callable(function):
        raise TypeError(f"{name} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def failure(error: BaseException) -> dict[str, str]:
    """Return an exception as an answer, with the learner's own line."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == SOURCE_NAME]
    place = f" (at `{frames[-1].line}`)" if frames and frames[-1].line else ""
    return {"error": type(error).__name__, "message": f"{error}"[:500] + place}


def answer_request(request: dict[str, Any], functions: list[Callable[..., Any]]) -> dict[str, Any]:
    """Return the answer to one request, which is to define a function or to call the one that is defined.
    `cpu` in it is the processor time in seconds.
    """
    start = time.process_time()
    answer = _answer(request, functions)
    return answer | {"cpu": time.process_time() - start}


def _answer(request: dict[str, Any], functions: list[Callable[..., Any]]) -> dict[str, Any]:
    try:
        if "source" in request:
            functions.clear()
            note = limit_resources(request["memory"], request["seconds"])
            functions.append(load(request["source"], request["name"]))
            return {"note": note}
        return {"value": encode(functions[0](*map(decode, request["call"])))}
    except BaseException as error:
        return failure(error)


def main() -> None:
    """Answer requests until the pipe closes. Arguments: the folder to work in, then the folders that
    stay hidden.
    """
    folder, denied = Path(sys.argv[1]), sys.argv[2:]
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # What a function prints goes nowhere.
        os.dup2(null, descriptor)
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    os.chdir(folder)
    if not (folder / "lab").is_dir():
        sys.meta_path.insert(0, BlockedFinder())  # type: ignore[arg-type]
    sys.path.insert(0, str(folder))
    sys.addaudithook(guard(folder, denied))
    functions: list[Callable[..., Any]] = []
    for line in requests:
        answers.write(json.dumps(answer_request(json.loads(line), functions)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
