"""Functions of the learner in place of the lab's in the training loop. A method declares in its file
which of its functions can be replaced (`MethodSpec.hooks`); the run holds the replacements, and this
module calls them and checks what they return.

They are not stored with the run: only their names and sources are, for a reader.
"""

import inspect
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lab.config.hooks import REWARD, Hook
from lab.config.methods import METHODS, method_of
from lab.config.run_config import RunConfig
from lab.distributed import collectives
from lab.errors import LabError, unknown
from lab.runs.folder import RunFolder
from lab.storage.jsonl import replace_file

if TYPE_CHECKING:
    from lab.training.state import TrainState

OwnFunctions = Mapping[str, Callable[..., Any]]
OWN_FUNCTIONS_FILE = "own_functions.json"


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function as a part of a file name: letters, digits, "_" and "-"."""
    name = str(getattr(function, "__name__", type(function).__name__))
    return "".join(c if c.isalnum() or c in "_-" else "" for c in name) or "function"


def require_hooks(config: RunConfig, functions: OwnFunctions) -> None:
    """Raise `LabError` unless the method of `config` has a place for each function."""
    method = METHODS[method_of(config)]
    hooks = {hook.name: hook for hook in method.hooks}
    for name, function in functions.items():
        if name not in hooks:
            raise unknown(f"function of your own for {method.name}", name, list(hooks))
        if not callable(function) or inspect.isclass(function):
            own = f"my_{method.name}_loss" if name == "loss" else f"my_{name}"
            raise LabError(
                f"{name} is {_kind_of(function)}, but takes a function: its name, without a call, as in"
                f' train("{method.name}", {name}={own}).'
            )
    reward_from = getattr(config, "reward_from", "gold")
    if REWARD.name in functions and reward_from not in ("gold", ""):
        raise LabError(
            f"reward is a function of your own, but reward_from is '{reward_from}', whose reward"
            " model scores all completions. Leave one of the two out."
        )
    if functions and collectives.world_size() > 1:
        raise LabError(
            "Functions of your own train in one process only. Start it without torchrun."
        )


def _kind_of(value: Any) -> str:
    """The value in an error: a class by its name, a tensor or array by its shape, anything else as Python
    writes it, shortened.
    """
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    shape = getattr(value, "shape", None)
    return (
        f"{value!r:.60}" if shape is None else f"a {type(value).__name__} of shape {tuple(shape)}"
    )


def note_functions(folder: RunFolder, functions: OwnFunctions) -> None:
    """Write the names and the sources of the functions into the run folder. The sources are for a
    reader; nothing runs them.
    """
    rows = {
        name: {"name": function_name(function), "source": _source(function)}
        for name, function in functions.items()
    }
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    replace_file(folder.path / OWN_FUNCTIONS_FILE, text.encode())


def noted_functions(folder: RunFolder) -> dict[str, str]:
    """Return the names of the functions that a run was started with, by their place; empty for a run
    of the lab's own functions alone.
    """
    try:
        rows = json.loads((folder.path / OWN_FUNCTIONS_FILE).read_text("utf-8"))
        return {str(place): str(row["name"]) for place, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return {"?": "a function"}


def require_start(folder: RunFolder, functions: OwnFunctions, *, has_begun: bool) -> None:
    """Raise `LabError` when a run of the learner's functions would go on without them, or would go on
    at all: what they were at the start is not stored.
    """
    noted = noted_functions(folder)
    if not noted and not functions:
        return
    names = ", ".join(noted.values()) or ", ".join(map(function_name, functions.values()))
    if has_begun or noted and not functions:
        raise LabError(
            f"{folder.path} trains with functions of a notebook ({names}), which are not stored with"
            " the run. So it cannot be resumed. Run the notebook's cell again: it starts anew."
        )


def _source(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def unfit_signature(
    function: Callable[..., Any], inputs: Sequence[Any]
) -> inspect.Signature | None:
    """Return the signature of `function` if it cannot be called with so many inputs, else None."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # A builtin without a signature.
        return None
    try:
        signature.bind(*inputs)
    except TypeError:
        return signature
    return None


def error_place(function: Callable[..., Any], error: BaseException) -> str:
    """Return " in line 3, `x = y`" for the innermost line of an exception that is in the file or cell
    of `function`; empty when there is none.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == getattr(code, "co_filename", None)
    ]
    if not frames:
        return ""
    line = f", `{frames[-1].line}`" if frames[-1].line else ""
    return f" in line {frames[-1].lineno}{line}"


def call_own(hook: Hook, function: Callable[..., Any], inputs: Sequence[Any], update: int) -> Any:
    """Return what the learner's function gives. An exception inside of it becomes a `LabError` with
    the learner's own line; the exception itself, with the learner's frames alone, is its cause.
    """
    try:
        return function(*inputs)
    except Exception as error:
        if (signature := unfit_signature(function, inputs)) is not None:
            raise LabError(
                f"{_owner(hook, function)} takes {signature}, but is called with {len(inputs)} values"
                f" in this order: {', '.join(hook.arguments)}."
            ) from None
        shapes = ", ".join(
            f"{name} {_shape_text(value)}" for name, value in zip(hook.arguments, inputs)
        )
        raise LabError(
            f"{_owner(hook, function)} stopped at update {update} with {type(error).__name__}:"
            f" {error}{error_place(function, error)}. It was called with {shapes}."
        ) from error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)


def own_tensor(
    run: "TrainState", hook: Hook, inputs: Sequence[Any], like: torch.Tensor
) -> torch.Tensor:
    """Return what the run's function for `hook` gives, as a tensor of the shape, type and device of
    `like`; dimensions of size 1 may be there or not.

    Where `like` has a gradient, the result must have one. Raises `LabError` for another shape or
    kind, for numbers that are not finite, and when the function itself raises.
    """
    function, update = run.own[hook.name], run.step + 1
    value = call_own(hook, function, inputs, update)
    who = f"{_owner(hook, function)} gives at update {update}"
    wanted = f"It should give {hook.returns}, here {_shape_text(like)}."
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        kind = "nothing" if value is None else f"a {type(value).__name__}"
        raise LabError(f"{who} {kind}. {wanted}") from None
    if _significant(tensor) != _significant(like):
        raise LabError(f"{who} the shape {_shape_text(tensor)}. {wanted}")
    if like.requires_grad and not tensor.requires_grad:
        raise LabError(
            f"{who} numbers without a gradient, so nothing would be learned. detach(), item(), numpy"
            " and torch.tensor(…) cut the gradient: compute with the tensors that it gets."
        )
    tensor = tensor.to(like.device, like.dtype).reshape(like.shape)
    if not bool(tensor.isfinite().all()):
        bad = int((~tensor.isfinite()).sum())
        raise LabError(
            f"{who} {bad} of {tensor.numel()} numbers that are NaN or infinite. Look for 0/0, the"
            " logarithm of 0 or a large exp. The weights are those of the update before."
        )
    return tensor


def backward(run: "TrainState", loss: torch.Tensor) -> None:
    """Add the gradient of a loss to that of the weights. Raises `LabError` where a learner's function has
    changed a tensor in place that the gradient needs.
    """
    try:
        loss.backward()
    except RuntimeError as error:
        if not run.own or "inplace operation" not in str(error):
            raise
        names = ", ".join(map(function_name, run.own.values()))
        raise LabError(
            f"The gradient through {names} stopped at update {run.step + 1}: a tensor that it needs was"
            " changed in place. Make a new tensor: x = x * 2 instead of x *= 2, and torch.where instead"
            " of x[…] = …."
        ) from None


def own_reward(run: "TrainState", completion: str, answer: str) -> float:
    """Return the reward that the learner's function gives one completion."""
    function, update = run.own[REWARD.name], run.step + 1
    value = call_own(REWARD, function, (completion, answer), update)
    try:
        reward = float(value)
    except (TypeError, ValueError):
        reward = float("nan")
    if not abs(reward) < float("inf"):
        raise LabError(
            f"{_owner(REWARD, function)} gives {value!r} at update {update} for the completion"
            f" {completion!r} (answer {answer!r}). It should give {REWARD.returns}."
        )
    return reward


def _owner(hook: Hook, function: Callable[..., Any]) -> str:
    return f"{function_name(function)}, your {hook.name.replace('_', ' ')},"


def _significant(tensor: torch.Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]


def _shape_text(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return str(tuple(value.shape)) if value.ndim else "a single number"
    return repr(value)
