"""What a method keeps beside the policy from one update to the next: a reward model, and for PPO a
critic, a reference with weights of its own and the factor of its KL penalty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import PreTrainedModel

from lab.training.heads import ScalarHeadModel

if TYPE_CHECKING:
    from lab.training.state import TrainState


@dataclass
class MethodState:
    """The state of a method that keeps nothing: SFT, the reward model, DPO, IPO and KTO."""

    @classmethod
    def of(cls, run: "TrainState[Any]") -> Self:
        """Return the method state of a run as this class; raise `TypeError` if it is of another one."""
        if not isinstance(run.method_state, cls):
            raise TypeError(
                f"The run keeps a {type(run.method_state).__name__}, not a {cls.__name__}."
            )
        return run.method_state

    def heads(self) -> dict[str, ScalarHeadModel]:
        """Return the networks with a scalar head, by the name of their role."""
        return {}

    def trainable_parameters(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        """Return the weights that train beside the policy's, by name, for each setting that is a
        learning rate.
        """
        return {}

    def to_checkpoint(self) -> dict[str, Any]:
        """Return the numbers that a checkpoint holds of it."""
        return {"kl_factor": 1.0}

    def load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the numbers of `to_checkpoint`."""


@dataclass
class OnlineState(MethodState):
    """The state of GRPO and online DPO: the reward model that scores completions, None for gold."""

    reward_model: ScalarHeadModel | None = None

    def heads(self) -> dict[str, ScalarHeadModel]:
        """Return the reward model, if there is one."""
        return {} if self.reward_model is None else {"reward model": self.reward_model}


@dataclass(kw_only=True)
class PPOState(OnlineState):
    """The state of PPO: `critic` expects the return of every token, `frozen_reference` has weights of
    its own (None where the policy without its adapter is the reference), `kl_factor` multiplies β.
    """

    critic: ScalarHeadModel
    frozen_reference: PreTrainedModel | None = None
    kl_factor: float = 1.0

    def heads(self) -> dict[str, ScalarHeadModel]:
        """Return the reward model, if there is one, and the critic."""
        return super().heads() | {"critic": self.critic}

    def trainable_parameters(self) -> dict[str, dict[str, torch.nn.Parameter]]:
        """Return the critic's weights."""
        return {"critic_learning_rate": dict(self.critic.named_parameters())}

    def to_checkpoint(self) -> dict[str, Any]:
        """Return the factor of the KL penalty."""
        return {"kl_factor": self.kl_factor}

    def load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the factor of the KL penalty."""
        self.kl_factor = checkpoint["kl_factor"]
