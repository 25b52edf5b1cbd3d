"""The objectives against the code of TRL 1.16, whose own methods run here on the same
log-probabilities: values and gradients.

Each TRL method gets a stand-in for its trainer that holds the settings it reads, and a stand-in for
the model that returns given log-probabilities. Where the lab differs from TRL, it means to:

- `ipo` sums over tokens as the paper does; TRL's IPO takes means over tokens, which is
  `ipo_token_mean`.
- TRL logs β·sum as the reward of IPO though its loss compares means; `ipo_token_mean` logs β·mean,
  so that the margin is the one in the loss.
- `label_smoothing` smooths DPO's own loss (cDPO), as in TRL's losses aot and CPO; TRL 1.16 ignores
  the setting in its loss sigmoid.
- A group of equal rewards has advantage exactly 0; in TRL it keeps the rounding of its mean,
  divided by a std that may be 0 + 1e-4.
- A dead group is dead whatever the scale; TRL with scale_rewards="batch" counts by the std of the
  batch and reports none.
- ε_std is an argument of the lab; in TRL it is 1e-4.
- Pieces of a batch add up to the batch; TRL's bnpo averages the means of its micro-batches, so a
  short one weighs as much as a long one.
- Outside the completion a GRPO token costs exactly 0 whatever stands there; TRL multiplies by the
  mask, so an infinite value becomes NaN.
"""

import json
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, disable_progress_bars
from support.tiny import CHATML, save
from trl import KTOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.utils import selective_log_softmax

from lab.algorithms.advantages import dead_groups, group_advantages
from lab.algorithms.logprobs import sequence_logps, token_logps
from lab.algorithms.losses import (
    dpo_loss,
    ipo_loss,
    ipo_token_mean_loss,
    kto_loss,
    kto_reference_point,
    reward_model_loss,
)
from lab.algorithms.policy_losses import grpo_loss
from lab.algorithms.reductions import batch_mean, fixed_length, sequence_mean, token_mean
from lab.config.methods import make_config
from lab.data.batching import batch_indices, collate
from lab.data.token_rows import EncodedExample
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer
from lab.runs.records import StepRecord
from lab.training.loop import prepare, train

SAME = {"rtol": 1e-9, "atol": 1e-12}  # Both sides compute in float64.
STD = {"rtol": 1e-6, "atol": 1e-9}  # TRL corrects the std for its G − 1 in float32.
ALONE = SimpleNamespace(
    device=torch.device("cpu"),
    num_processes=1,
    process_index=0,
    sync_gradients=True,
    gather=lambda x: x,
    gather_for_metrics=lambda x: x,
    reduce=lambda x, reduction: x,
)


def trainer(**settings):
    """A stand-in for a TRL trainer on one device that trains a dense model without extras."""
    shared = {
        "accelerator": ALONE,
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**(shared | settings))


def draw(*shape, seed, scale=1.0):
    return scale * torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def gradient(loss, leaf):
    return torch.autograd.grad(loss, leaf)[0]


def agree(ours, theirs, leaf):
    torch.testing.assert_close(ours, theirs, **SAME)
    mine = gradient(ours, leaf)
    assert mine.norm() > 0
    torch.testing.assert_close(mine, gradient(theirs, leaf), **SAME)


# Offline methods: rows of 8 tokens; entry t of a (B, 8) tensor belongs to token t, while TRL's (B,
# 7) tensors start at token 1.

COMPLETIONS = [
    (2, 5),
    (3, 8),
    (2, 8),
    (2, 7),
    (4, 5),
    (3, 6),
]  # First token of the completion, and the one after its last.
MASK = torch.tensor([[start <= t < end for t in range(8)] for start, end in COMPLETIONS])


class Frozen:
    """A model for TRL that returns given log-probabilities (B, 8): 0 outside of the labels, as
    TRL's fused head does.
    """

    def __init__(self, logps):
        self.logps = logps

    def __call__(self, *, labels, **inputs):
        after_first = self.logps[:, 1:]
        zeros = torch.zeros_like(after_first)
        return SimpleNamespace(
            log_probs=after_first.masked_fill(labels[:, 1:] == -100, 0.0),
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
        )


def batch_for_trl(mask, **more):
    ids = torch.full(mask.shape, 5)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": mask.long(),
        **more,
    }


@pytest.fixture
def policy():
    return (draw(6, 8, seed=1) - 2).requires_grad_()


@pytest.fixture
def reference():
    return sequence_logps(draw(6, 8, seed=2) - 2, MASK)


def trl_preference(loss_type, policy, reference, beta, mask=MASK, label_smoothing=0.0):
    """TRL's loss on three pairs, the chosen rows first, and what it logs."""
    stand_in = trainer(
        beta=beta,
        label_smoothing=label_smoothing,
        loss_types=[loss_type],
        loss_weights=[1.0],
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        use_weighting=False,
    )
    chosen, rejected = reference.chunk(2)
    loss = DPOTrainer._compute_loss(
        stand_in,
        Frozen(policy),
        batch_for_trl(mask, ref_chosen_logps=chosen, ref_rejected_logps=rejected),
        False,
    )
    return loss, stand_in._metrics["train"]


def means(metrics):
    return {name: value.nanmean().item() for name, value in metrics.items()}


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_dpo_is_trls_sigmoid_loss_with_its_logged_rewards(policy, reference, beta):
    theirs, logged = trl_preference("sigmoid", policy, reference, beta)
    losses, metrics = dpo_loss(
        *sequence_logps(policy, MASK).chunk(2), *reference.chunk(2), beta=beta
    )
    agree(batch_mean(losses), theirs, policy)
    assert len(metrics) == 6
    for name, value in means(metrics).items():
        assert value == pytest.approx(logged[name][0], rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("smoothing", [0.05, 0.3, 0.5])
def test_dpo_with_label_smoothing_is_what_trl_computes_for_a_pair(policy, reference, smoothing):
    """TRL's loss aot smooths so; it sorts the pairs, and one pair is sorted."""
    settings = {"beta": 0.7, "label_smoothing": smoothing}
    for i in range(3):
        rows = torch.tensor([i, i + 3])
        logps, frozen = sequence_logps(policy[rows], MASK[rows]), reference[rows]
        losses, _ = dpo_loss(*logps.chunk(2), *frozen.chunk(2), **settings)
        theirs, _ = trl_preference(
            "aot", policy[rows], frozen, 0.7, MASK[rows], label_smoothing=smoothing
        )
        agree(losses.sum(), theirs, policy)


@torch.no_grad()
def test_trl_ignores_label_smoothing_in_its_sigmoid_loss_and_logs_the_same(policy, reference):
    inputs = (*sequence_logps(policy, MASK).chunk(2), *reference.chunk(2))
    plain, smoothed = (dpo_loss(*inputs, beta=0.7, label_smoothing=e) for e in (0.0, 0.3))
    theirs, _ = trl_preference("sigmoid", policy, reference, 0.7, label_smoothing=0.3)
    torch.testing.assert_close(batch_mean(plain[0]), theirs, **SAME)
    assert not torch.allclose(plain[0], smoothed[0])
    for name, value in plain[1].items():
        assert torch.equal(value, smoothed[1][name])


def test_a_smoothed_loss_is_lowest_at_the_margin_that_the_help_names():
    zero = torch.zeros(1, dtype=torch.float64)
    target = (torch.tensor([0.9 / 0.1], dtype=torch.float64).log() / 0.5).requires_grad_()
    loss, _ = dpo_loss(target, zero, zero, zero, beta=0.5, label_smoothing=0.1)
    assert gradient(loss.sum(), target).abs().item() < 1e-12
    # By hand: −0.9·log 0.9 − 0.1·log 0.1.
    assert loss.item() == pytest.approx(0.325082973391448, rel=1e-12)


@pytest.mark.parametrize("beta", [0.05, 0.5, 2.0])
def test_ipo_on_token_means_is_trls_ipo(policy, reference, beta):
    theirs, _ = trl_preference("ipo", policy, reference, beta)
    losses, _ = ipo_token_mean_loss(
        *sequence_logps(policy, MASK).chunk(2),
        *reference.chunk(2),
        *MASK.sum(1).chunk(2),
        beta=beta,
    )
    agree(batch_mean(losses), theirs, policy)


def test_ipo_on_sums_differs_from_trls_ipo_by_the_lengths_alone(policy, reference):
    theirs, _ = trl_preference("ipo", policy, reference, 0.1)
    losses, _ = ipo_loss(*sequence_logps(policy, MASK).chunk(2), *reference.chunk(2), beta=0.1)
    assert abs(batch_mean(losses) - theirs).item() > 1
    one_token = torch.zeros_like(MASK)
    one_token[:, 5] = True
    theirs, _ = trl_preference("ipo", policy, reference, 0.1, one_token)
    losses, _ = ipo_loss(*sequence_logps(policy, one_token).chunk(2), *reference.chunk(2), beta=0.1)
    agree(batch_mean(losses), theirs, policy)


def test_trl_logs_the_sum_as_the_reward_of_ipo_where_the_lab_logs_the_mean_of_the_loss(
    policy, reference
):
    _, logged = trl_preference("ipo", policy, reference, 0.5)
    arguments = *sequence_logps(policy, MASK).chunk(2), *reference.chunk(2)
    on_sums, on_means = (
        means(ipo_loss(*arguments, beta=0.5)[1]),
        means(ipo_token_mean_loss(*arguments, *MASK.sum(1).chunk(2), beta=0.5)[1]),
    )
    for name, value in on_sums.items():
        assert value == pytest.approx(logged[name][0], rel=1e-6, abs=1e-9), name
    assert on_means["rewards/margins"] != pytest.approx(logged["rewards/margins"][0], rel=1e-2)
    assert on_means["logps/chosen"] == pytest.approx(logged["logps/chosen"][0], rel=1e-6)


def trl_kto(policy, reference, desirable, crossed, crossed_reference, beta, weights):
    stand_in = trainer(
        beta=beta,
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        _compute_kl_logps=lambda model, batch: crossed,
    )
    inputs = batch_for_trl(
        MASK, label=desirable, ref_logps=reference, ref_KL_logps=crossed_reference
    )
    return (
        KTOTrainer._compute_loss(stand_in, Frozen(policy), inputs, False),
        stand_in._metrics["train"],
    )


@pytest.mark.parametrize("shift", [3.0, -3.0], ids=["z above 0", "z clamped to 0"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, 0.7)])
def test_kto_and_its_reference_point_are_trls(policy, reference, weights, shift):
    desirable = torch.tensor([True, False, False, True, True, False])
    crossed, crossed_reference = draw(6, seed=3) + shift, draw(6, seed=4)
    theirs, logged = trl_kto(policy, reference, desirable, crossed, crossed_reference, 0.3, weights)
    z = kto_reference_point(crossed, crossed_reference)
    assert z.item() == pytest.approx(logged["kl"][0], rel=1e-9) and (z > 0) == (shift > 0)
    losses, metrics = kto_loss(
        sequence_logps(policy, MASK),
        reference,
        desirable,
        z,
        beta=0.3,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
    )
    agree(batch_mean(losses), theirs, policy)
    for name, value in means(metrics).items():
        assert value == pytest.approx(logged[name][0], rel=1e-6), name


@pytest.mark.parametrize("desirable", [True, False])
def test_kto_is_trls_when_a_batch_holds_one_kind_only(policy, reference, desirable):
    kinds, zero = torch.full((6,), desirable), torch.zeros(6, dtype=torch.float64)
    theirs, _ = trl_kto(policy, reference, kinds, zero + 0.4, zero, 0.3, (1.0, 1.0))
    losses, _ = kto_loss(
        sequence_logps(policy, MASK),
        reference,
        kinds,
        kto_reference_point(zero + 0.4, zero),
        beta=0.3,
        desirable_weight=1.0,
        undesirable_weight=1.0,
    )
    agree(batch_mean(losses), theirs, policy)


def test_the_reward_models_loss_margin_and_accuracy_are_trls():
    scores = draw(6, seed=5).requires_grad_()
    stand_in = trainer(args=SimpleNamespace(center_rewards_coefficient=None))
    theirs = RewardTrainer.compute_loss(
        stand_in,
        lambda **inputs: SimpleNamespace(logits=scores[:, None]),
        {"attention_mask": torch.ones(6, 8)},
    )
    losses, metrics = reward_model_loss(*scores.chunk(2))
    agree(batch_mean(losses), theirs, scores)
    logged = stand_in._metrics["train"]
    assert metrics["rewards/accuracies"].mean().item() == pytest.approx(
        logged["accuracy"][0], rel=1e-6
    )
    assert metrics["rewards/margins"].mean().item() == pytest.approx(logged["margin"][0], rel=1e-6)


# GRPO.

LENGTHS = [3, 7, 1, 5, 7, 2]
TOKENS = torch.tensor([[t < n for t in range(7)] for n in LENGTHS])
ADVANTAGES = torch.tensor([1.2, -0.4, 0.0, -1.1, 0.3, -0.8], dtype=torch.float64)
LONGEST = 9
REDUCTIONS = {
    "grpo": sequence_mean,
    "bnpo": token_mean,
    "dapo": token_mean,
    "dr_grpo": lambda losses, mask: fixed_length(losses, mask, LONGEST),
}


def trl_grpo(
    loss_type,
    logps,
    old,
    reference,
    *,
    rows=slice(None),
    pieces=1,
    epsilon=(0.2, 0.2),
    beta=0.0,
    corrected=False,
):
    """TRL's loss on some rows of the six completions, one of `pieces` micro-batches, and what it
    logs.
    """
    stand_in = trainer(
        beta=beta,
        loss_type=loss_type,
        epsilon_low=epsilon[0],
        epsilon_high=epsilon[1],
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        max_completion_length=LONGEST,
        _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=pieces,
        args=SimpleNamespace(
            use_bias_correction_kl=corrected, delta=None, steps_per_generation=pieces
        ),
        _get_per_token_logps_and_entropies=lambda *arguments, **options: (
            logps[rows],
            torch.zeros_like(logps[rows]),
            None,
        ),
    )
    inputs = {
        "prompt_ids": torch.ones(len(logps[rows]), 2).long(),
        "prompt_mask": torch.ones(len(logps[rows]), 2).long(),
        "completion_ids": torch.ones_like(TOKENS[rows]).long(),
        "completion_mask": TOKENS[rows].long(),
        "advantages": ADVANTAGES[rows],
        "num_items_in_batch": TOKENS.sum(),
        "old_per_token_logps": None if old is None else old[rows],
        "ref_per_token_logps": reference[rows],
    }
    return GRPOTrainer._compute_loss(stand_in, None, inputs), stand_in._metrics["train"]


@pytest.fixture
def tokens():
    """Log-probabilities (6, 7) of the policy, of the policy that sampled, whose ratio leaves the
    clipping range both ways, and of the reference.
    """
    logps = (draw(6, 7, seed=6) - 2).requires_grad_()
    return (
        logps,
        logps.detach() + draw(6, 7, seed=7, scale=0.8),
        logps.detach() + draw(6, 7, seed=8, scale=0.5),
    )


@pytest.mark.parametrize("loss_type", REDUCTIONS)
@pytest.mark.parametrize("epsilon", [(0.2, 0.2), (0.2, 0.28), (0.1, 0.5)])
@pytest.mark.parametrize(
    "beta, corrected", [(0.0, False), (0.04, False), (0.5, False), (0.5, True)]
)
def test_grpo_is_trls_for_each_reduction_clipping_range_and_kl_term(
    tokens, loss_type, epsilon, beta, corrected
):
    logps, old, reference = tokens
    theirs, logged = trl_grpo(
        loss_type, logps, old, reference, epsilon=epsilon, beta=beta, corrected=corrected
    )
    losses, metrics = grpo_loss(
        logps,
        old,
        reference,
        ADVANTAGES,
        TOKENS,
        beta=beta,
        epsilon=epsilon[0],
        epsilon_high=epsilon[1],
        kl_estimator="k3_corrected" if corrected else "k3",
    )
    agree(REDUCTIONS[loss_type](losses, TOKENS), theirs, logps)
    clipped = metrics["clip_ratio/region_mean"].nanmean().item()
    assert (
        clipped == pytest.approx(logged["clip_ratio/region_mean"][0], rel=1e-6) and 0 < clipped < 1
    )
    assert min(logged["clip_ratio/low_mean"][0], logged["clip_ratio/high_mean"][0]) > 0


@pytest.mark.parametrize("loss_type", REDUCTIONS)
def test_grpo_on_policy_is_trls_without_old_log_probabilities(tokens, loss_type):
    logps, _, reference = tokens
    theirs, _ = trl_grpo(loss_type, logps, None, reference, beta=0.04)
    losses, metrics = grpo_loss(
        logps,
        logps.detach(),
        reference,
        ADVANTAGES,
        TOKENS,
        beta=0.04,
        epsilon=0.2,
        epsilon_high=0.2,
        kl_estimator="k3",
    )
    agree(REDUCTIONS[loss_type](losses, TOKENS), theirs, logps)
    assert metrics["ratio"][TOKENS].unique().tolist() == [1.0]


PIECES = [slice(0, 3), slice(3, 6)]


def plain(tokens, rows=slice(None)):
    logps, old, reference = tokens
    return grpo_loss(
        logps[rows],
        old[rows],
        reference[rows],
        ADVANTAGES[rows],
        TOKENS[rows],
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.2,
        kl_estimator="k3",
    )[0]


@pytest.mark.parametrize(
    "loss_type, reduce",
    [
        ("grpo", lambda losses, mask: sequence_mean(losses, mask, 6)),
        ("dapo", lambda losses, mask: token_mean(losses, mask, sum(LENGTHS))),
        ("dr_grpo", lambda losses, mask: fixed_length(losses, mask, LONGEST, 6)),
    ],
)
def test_each_piece_of_a_batch_costs_what_trls_micro_batch_costs(tokens, loss_type, reduce):
    for rows in PIECES:
        theirs, _ = trl_grpo(loss_type, *tokens, rows=rows, pieces=2)
        agree(reduce(plain(tokens, rows), TOKENS[rows]), theirs, tokens[0])


def test_pieces_of_a_token_mean_add_up_to_the_batch_where_trls_bnpo_averages_micro_batches(tokens):
    whole = token_mean(plain(tokens), TOKENS)
    pieces = sum(token_mean(plain(tokens, rows), TOKENS[rows], sum(LENGTHS)) for rows in PIECES)
    torch.testing.assert_close(pieces, whole, **SAME)
    averaged = sum(trl_grpo("bnpo", *tokens, rows=rows, pieces=2)[0] for rows in PIECES)
    assert abs(averaged - whole).item() > 1e-3


def test_an_infinite_value_outside_the_completion_costs_nothing_here_and_is_nan_in_trl(tokens):
    logps, old, reference = tokens
    theirs, _ = trl_grpo("grpo", logps, old.masked_fill(~TOKENS, -torch.inf), reference)
    losses, _ = grpo_loss(
        logps,
        old.masked_fill(~TOKENS, -torch.inf),
        reference,
        ADVANTAGES,
        TOKENS,
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.2,
        kl_estimator="k3",
    )
    assert theirs.isnan()
    torch.testing.assert_close(losses, plain(tokens), **SAME)


# Advantages.


def trl_advantages(rewards, group_size, scale):
    """The advantages that TRL computes from given rewards, and what it logs."""
    n = len(rewards)
    stand_in = trainer(
        environment_factories=None,
        tools=None,
        environments=None,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        num_iterations=1,
        use_vllm=False,
        beta=0.0,
        num_generations=group_size,
        multi_objective_aggregation="sum_then_normalize",
        reward_weights=torch.ones(1),
        scale_rewards=scale,
        reward_func_names=["gold"],
        args=SimpleNamespace(
            per_device_train_batch_size=n,
            gradient_checkpointing_kwargs=None,
            steps_per_generation=1,
            gradient_accumulation_steps=1,
        ),
        _logs={
            "prompt": [],
            "completion": [],
            "rewards": defaultdict(list),
            "advantages": [],
            "extra": {},
        },
        _pending_extra_logs={},
        _pending_metrics={},
        _generate=lambda prompts: ([[5]] * n, [[5]] * n, None, ["x"] * n, None, {}, None, None),
        _calculate_rewards=lambda *arguments: rewards[:, None],
    )
    output = GRPOTrainer._generate_and_score_completions(stand_in, [{"prompt": "x"}] * n)
    return output["advantages"], stand_in._metrics["train"]


MIXED = torch.tensor([1, 0, 0, 1, 0.25, 0.5, 0.75, 2, -1, 3, 0, 0], dtype=torch.float64)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize(
    "rewards, group_size",
    [
        (MIXED, 4),
        (MIXED, 6),
        (MIXED, 12),
        (draw(64, seed=9), 8),
        (draw(6, seed=10), 3),
        (torch.tensor([0.0, 1, 1, 1, 0, 0, 0, 0], dtype=torch.float64), 4),
    ],
)
def test_group_advantages_are_trls_for_each_scale(rewards, group_size, scale):
    theirs, _ = trl_advantages(rewards, group_size, scale)
    torch.testing.assert_close(group_advantages(rewards, group_size, scale=scale), theirs, **STD)


def test_trls_epsilon_std_is_the_default_of_the_lab_and_without_it_the_advantages_are_larger():
    theirs, _ = trl_advantages(MIXED[:4], 4, "group")
    exact = group_advantages(MIXED[:4], 4, scale="group", epsilon_std=0.0)
    std = (1 / 3) ** 0.5  # Of 1, 0, 0, 1: four squares of 1/2 over 3.
    torch.testing.assert_close(exact * std / (std + 1e-4), theirs, **STD)


def test_the_share_of_dead_groups_is_what_trl_logs_under_group_scale_and_none():
    rewards = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0], dtype=torch.float64)
    for scale in ("group", "none"):
        assert trl_advantages(rewards, 4, scale)[1]["frac_reward_zero_std"] == pytest.approx(
            [2 / 3], rel=1e-6
        )
    assert dead_groups(rewards, 4).tolist() == [True, True, False]


def test_under_batch_scale_the_lab_still_counts_the_dead_groups_where_trl_logs_none():
    rewards = torch.tensor([1.0, 1, 1, 1, 0, 1, 0, 0], dtype=torch.float64)
    theirs, logged = trl_advantages(rewards, 4, "batch")
    assert logged["frac_reward_zero_std"] == [0.0] and dead_groups(rewards, 4).tolist() == [
        True,
        False,
    ]
    assert (
        theirs[:4].tolist() == group_advantages(rewards, 4, scale="batch")[:4].tolist() == [0.0] * 4
    )


def test_a_dead_group_of_awkward_rewards_has_advantage_zero_here_and_rounding_noise_in_trl():
    rewards = torch.tensor([0.2] * 7 + [0.7] * 7, dtype=torch.float32)
    theirs, _ = trl_advantages(rewards, 7, "group")
    assert theirs.abs().max() > 0
    assert group_advantages(rewards, 7, scale="group").tolist() == [0.0] * 14


# From ids and logits.


def test_ids_and_masks_of_a_batch_are_those_of_trls_preference_collator():
    rows = [
        ([5, 6], [7, 1], [8, 9, 6, 1]),
        ([5, 6, 7], [9, 9, 9, 1], [1]),
        ([5], [6, 1], [4, 4, 4, 4, 4, 4, 1]),
    ]
    for pad_id in (0, 1):
        theirs = DataCollatorForPreference(pad_id)(
            [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in rows]
        )
        ours = collate(
            [EncodedExample(p + c, len(p)) for p, c, _ in rows]
            + [EncodedExample(p + r, len(p)) for p, _, r in rows],
            pad_id,
        )
        assert torch.equal(ours.ids, theirs["input_ids"]) and torch.equal(
            ours.completion_mask.long(), theirs["completion_mask"]
        )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_token_log_probabilities_are_those_of_trls_selective_log_softmax(temperature):
    logits, ids = (
        draw(4, 9, 20, seed=11).requires_grad_(),
        torch.randint(20, (4, 9), generator=torch.Generator().manual_seed(12)),
    )
    ours, theirs = (
        token_logps(logits, ids, temperature),
        selective_log_softmax(logits[:, :-1] / temperature, ids[:, 1:]),
    )
    torch.testing.assert_close(ours[:, 1:], theirs, **SAME)
    weights = draw(4, 8, seed=13)
    agree((ours[:, 1:] * weights).sum(), (theirs * weights).sum(), logits)


# Whole trainers: the same model, LoRA weights, order and learning rate.


def judged(conversational):
    """48 sums, the answers to every second one right; right ones are longer, so that z rises above
    0.
    """
    rows = []
    for n in range(48):
        texts = f"{n}+{n}=", f"{2 * n}, as twice {n}" if n % 2 else f"{n}!"
        if conversational:
            texts = (
                [{"role": role, "content": text}]
                for role, text in zip(("user", "assistant"), texts)
            )
        rows.append(dict(zip(("prompt", "completion"), texts), label=bool(n % 2)))
    return rows


def trls_losses(config, rows, folder):
    """The loss and KL of every update of TRL's KTOTrainer from the lab's own fresh policy, on
    `rows` in their order.
    """
    same = {
        name: getattr(config, name)
        for name in ("learning_rate", "beta", "max_grad_norm", "max_length")
    }
    arguments = KTOConfig(
        **same,
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        disable_tqdm=True,
    )
    disable_progress_bars()
    trainer = KTOTrainer(
        load_policy(config, torch.device("cpu")),
        None,
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(config.model),
    )
    trainer.train()
    return [(row["loss"], row["kl"]) for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize(
    "conversational, max_length",
    [(False, 99), (False, 12), (True, 99), (True, 32)],
    ids=["plain", "plain, cut", "conversational", "conversational, cut"],
)
def test_eight_updates_of_kto_are_those_of_trls_trainer(conversational, max_length, tmp_path):
    rows, model = (
        judged(conversational),
        save(tmp_path / "model", template=CHATML if conversational else None),
    )
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = make_config(
        "kto",
        {
            "model": model,
            "task": "chain",
            "data": str(tmp_path / "data.jsonl"),
            "steps": 8,
            "batch_size": 6,
            "learning_rate": 0.02,
            "max_length": max_length,
            "eval_every": 0,
            "eval_prompts": 2,
            "max_completion_tokens": 4,
            "device": "cpu",
        },
    )
    order = [
        i
        for step in range(1, 9)
        for i in batch_indices(len(rows), config.batch_size, config.seed, step)
    ]
    theirs = trls_losses(config, [rows[i] for i in order], tmp_path / "trl")
    ours = [
        (r.metrics["loss"], r.metrics["kto/z"])
        for r in train(prepare(config))
        if isinstance(r, StepRecord) and r.step
    ]
    assert len(ours) == 8 and sum(z > 0.01 for _, z in ours) >= 3 and abs(ours[-1][0] - 0.5) > 0.01
    assert [loss for loss, _ in ours] == pytest.approx([loss for loss, _ in theirs], rel=1e-4)
    assert [z for _, z in ours] == pytest.approx(
        [z for _, z in theirs], rel=1e-4, abs=1e-4
    )  # The difference of two sums of about 100 nats in float32.
