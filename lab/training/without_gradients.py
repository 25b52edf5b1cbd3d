"""`torch.no_grad` as a decorator for a module that must not load torch when it is imported."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def without_gradients(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return `function` with gradients switched off while it runs."""

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        import torch

        with torch.no_grad():
            return function(*args, **kwargs)

    return call
