"""Right answers to the exercises in many forms: NumPy arrays, lists, numbers, other shapes, guarded
divisions and other ways to write a formula. The name of the exercise, the form, the function.
"""

import json
import math
from fractions import Fraction
from statistics import mean, stdev

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus


def _margin(pw, pl, qw, ql):
    return (pw - qw) - (pl - ql)


def _ipo(pw, pl, qw, ql, beta):
    return (_margin(pw, pl, qw, ql) - 1 / (2 * beta)) ** 2


def _ratio(p, o):
    return (p - o).exp()


def _numpy(*tensors):
    return [t.numpy() for t in tensors]


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _groups(r, g):
    return r.view(-1, g)


def _centred(r, g):
    return _groups(r, g) - _groups(r, g).mean(1, keepdim=True)


def _std(r, g):
    return _groups(r, g).std(1, keepdim=True)


def _kto_gain(p, q, d, z):
    return torch.where(d, p - q - z, z - p + q)


def _completion_mask_loop(ids, starts, end):
    rows = []
    for row, start in zip(ids.tolist(), starts.tolist()):
        stop = row.index(end, start)
        rows.append([start <= t <= stop for t in range(len(row))])
    return rows


def _gae_list(r, v, gamma, lam):
    out, future, following = [], 0.0, 0.0
    for reward, value in zip(reversed(r.tolist()), reversed(v.tolist())):
        future = reward + gamma * following - value + gamma * lam * future
        following = value
        out.insert(0, future)
    return out


def _gae_matrix(r, v, gamma, lam):
    n = len(r)
    delta = r + gamma * torch.cat([v[1:], v.new_zeros(1)]) - v
    t = torch.arange(n)
    return torch.triu((gamma * lam) ** (t[None] - t[:, None]).clamp(min=0).double()) @ delta


def _kl_shaped_loop(s, p, q, m, beta):
    out = torch.zeros_like(p)
    for i, row in enumerate(m):
        places = row.nonzero().flatten()
        out[i, places] = -beta * (p - q)[i, places]
        out[i, places[-1]] += s[i]
    return out


def _k(p, q, kind):
    x = (q - p).numpy()
    return {"k1": -x, "k2": x * x / 2, "k3": np.expm1(x) - x}[kind]


def _reduce_loop(x, m, kind, n):
    rows = [row[keep] for row, keep in zip(x, m)]
    if kind == "sequence_mean":
        return sum(row.mean() for row in rows) / len(rows)
    total = sum(row.sum() for row in rows)
    return total / (sum(map(len, rows)) if kind == "token_mean" else len(rows) * n)


def _pass_product(n, c, k):
    return 1 - math.prod((n - c - i) / (n - i) for i in range(k))


def _is_right(text, answer):
    """Whether a completion of the task is well-formed and right."""
    head, mark, last = text.rpartition("</think>")
    return float(last == answer and (not mark or head.startswith("<think>")))


def _share_of_right_steps(text):
    if "<think>" not in text:
        return 0
    right = []
    for step in text.split("<think>")[1].split("</think>")[0].split(";"):
        term, _, result = step.partition("=")
        is_term = term[:1].isdigit() and set(term) <= set("0123456789+-*")
        right.append(is_term and result.isdigit() and eval(term) % 100 == int(result))
    return mean(map(float, right))


def _holm_numpy(p):
    order = np.argsort(p)
    lifted = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(lifted, 1)
    return corrected


RIGHT = [
    ("my_sft_loss", "indexing", lambda p, m: -p[m].mean()),
    ("my_sft_loss", "NumPy", lambda p, m: -p.numpy()[m.numpy()].mean()),
    ("my_short_reward", "clip", lambda t, a: _is_right(t, a) - np.clip((len(t) - 20) / 40, 0, 1)),
    ("my_steps_reward", "eval", lambda t, a: _share_of_right_steps(t)),
    ("my_hinge_loss", "relu", lambda *a: torch.relu(1 - a[4] * _margin(*a[:4]))),
    (
        "my_smoothed_loss",
        "cross entropy",
        lambda *a: binary_cross_entropy_with_logits(
            a[4] * _margin(*a[:4]), torch.full_like(a[0], 0.75), reduction="none"
        ),
    ),
    ("my_holm", "NumPy", lambda p: _holm_numpy(np.array(p))),
    ("my_score", "bool", lambda text, answer: text.split("</think>")[-1] == answer),
    ("my_score", "int", lambda text, answer: int(text.rpartition("</think>")[2] == answer)),
    (
        "my_confidence_interval",
        "numbers",
        lambda v, t: (mean(v.tolist()), t * stdev(v.tolist()) / math.sqrt(len(v))),
    ),
    ("my_confidence_interval", "list", lambda v, t: [v.mean(), t * v.std() / len(v) ** 0.5]),
    (
        "my_confidence_interval",
        "NumPy",
        lambda v, t: np.array([v.numpy().mean(), t * v.numpy().std(ddof=1) / len(v) ** 0.5]),
    ),
    ("my_bradley_terry", "softmax", lambda c, r: torch.stack([c, r], 1).softmax(1)[:, 0]),
    ("my_bradley_terry", "NumPy", lambda c, r: _sigmoid((c - r).numpy())),
    ("my_bradley_terry", "exp over sum", lambda c, r: c.exp() / (c.exp() + r.exp())),
    ("my_reward_model_loss", "softplus", lambda c, r: softplus(r - c)),
    ("my_reward_model_loss", "list", lambda c, r: softplus(r - c).tolist()),
    ("my_reward_model_loss", "column", lambda c, r: softplus(r - c)[:, None]),
    ("my_reward_model_loss", "list of tensors", lambda c, r: list(softplus(r - c))),
    ("my_kl_shaped_rewards", "loop", _kl_shaped_loop),
    ("my_kl_shaped_rewards", "NumPy", lambda *a: _kl_shaped_loop(*a).numpy()),
    ("my_gae", "list", _gae_list),
    ("my_gae", "matrix", _gae_matrix),
    ("my_gae", "row", lambda *a: _gae_matrix(*a)[None]),
    ("my_whiten", "no ε", lambda a, m: torch.where(m, (a - a[m].mean()) / a[m].std(), 0.0)),
    ("my_whiten", "ε 1e-8", lambda a, m: (a - a[m].mean()) / (a[m].std() + 1e-8) * m),
    (
        "my_whiten",
        "ε inside the root",
        lambda a, m: (a - a[m].mean()) / (a[m].var() + 1e-8).sqrt() * m,
    ),
    (
        "my_objective",
        "NumPy number",
        lambda p, q, r, b: np.sum(p.numpy() * (r.numpy() - b * np.log(p.numpy() / q.numpy()))),
    ),
    ("my_objective", "item", lambda p, q, r, b: (p * (r - b * (p / q).log())).sum().item()),
    ("my_objective", "(1,)", lambda p, q, r, b: (p * (r - b * (p / q).log())).sum()[None]),
    ("my_log_partition", "logsumexp", lambda q, r, b: (q.log() + r / b).logsumexp(0)),
    ("my_log_partition", "math", lambda q, r, b: math.log((q * (r / b).exp()).sum())),
    ("my_optimal_policy", "softmax", lambda q, r, b: (q.log() + r / b).softmax(0)),
    (
        "my_optimal_policy",
        "guarded",
        lambda q, r, b: q * (r / b).exp() / ((q * (r / b).exp()).sum() + 1e-12),
    ),
    ("my_implied_reward", "list", lambda p, q, b: [b * math.log(x / y) for x, y in zip(p, q)]),
    ("my_completion_mask", "lists of bool", _completion_mask_loop),
    ("my_completion_mask", "float", lambda *a: torch.tensor(_completion_mask_loop(*a)).float()),
    ("my_completion_mask", "NumPy", lambda *a: np.array(_completion_mask_loop(*a))),
    ("my_sequence_logps", "where", lambda x, m: torch.where(m, x, 0.0).sum(-1)),
    ("my_sequence_logps", "keepdim", lambda x, m: (x * m).sum(1, keepdim=True)),
    ("my_sequence_logps", "list", lambda x, m: [r[k].sum().item() for r, k in zip(x, m)]),
    ("my_sequence_logps", "einsum", lambda x, m: torch.einsum("bt,bt->b", x, m.double())),
    ("my_dpo_loss", "softplus", lambda pw, pl, qw, ql, b: softplus(-b * _margin(pw, pl, qw, ql))),
    (
        "my_dpo_loss",
        "cross-entropy",
        lambda pw, pl, qw, ql, b: binary_cross_entropy_with_logits(
            b * _margin(pw, pl, qw, ql), torch.ones_like(pw), reduction="none"
        ),
    ),
    (
        "my_dpo_loss",
        "NumPy",
        lambda pw, pl, qw, ql, b: np.log1p(np.exp(-b * _margin(*_numpy(pw, pl, qw, ql)))),
    ),
    (
        "my_dpo_loss",
        "log of sigmoid",
        lambda pw, pl, qw, ql, b: -torch.sigmoid(b * _margin(pw, pl, qw, ql)).log(),
    ),
    (
        "my_dpo_loss",
        "float32",
        lambda pw, pl, qw, ql, b: -logsigmoid((b * _margin(pw, pl, qw, ql)).float()),
    ),
    (
        "my_dpo_gradient_weight",
        "one minus sigmoid",
        lambda pw, pl, qw, ql, b: b * (1 - torch.sigmoid(b * _margin(pw, pl, qw, ql))),
    ),
    (
        "my_dpo_gradient_weight",
        "column",
        lambda pw, pl, qw, ql, b: (b / (1 + (b * _margin(pw, pl, qw, ql)).exp()))[:, None],
    ),
    ("my_ipo_loss", "product", lambda *a: torch.sqrt(_ipo(*a)) * torch.sqrt(_ipo(*a))),
    ("my_ipo_loss", "list", lambda *a: _ipo(*a).tolist()),
    (
        "my_ipo_loss",
        "multiplied out",
        lambda pw, pl, qw, ql, b: (2 * b * _margin(pw, pl, qw, ql) - 1) ** 2 / (4 * b * b),
    ),
    (
        "my_ipo_token_mean",
        "clamped lengths",
        lambda pw, pl, qw, ql, nw, nl, b: (
            ((pw - qw) / nw.clamp(min=1) - (pl - ql) / nl.clamp(min=1) - 0.5 / b) ** 2
        ),
    ),
    (
        "my_kto_loss",
        "sigmoid of minus",
        lambda p, q, d, z, b, wd, wu: (
            torch.where(d, wd, wu) * torch.sigmoid(-b * _kto_gain(p, q, d, z))
        ),
    ),
    (
        "my_kto_loss",
        "list",
        lambda p, q, d, z, b, wd, wu: [
            (wd if good else wu) * (1 - _sigmoid(b * gain))
            for good, gain in zip(d.tolist(), _kto_gain(p, q, d, z).tolist())
        ],
    ),
    (
        "my_kto_z",
        "number",
        lambda p, q: max(0.0, mean((p - q)[i, (i + 1) % len(p)].item() for i in range(len(p)))),
    ),
    (
        "my_kto_z",
        "NumPy",
        lambda p, q: np.maximum(
            0, np.roll(p.detach().numpy() - q.detach().numpy(), -1, 1).diagonal().mean()
        ),
    ),
    (
        "my_kto_z",
        "(1,)",
        lambda p, q: (p - q).roll(-1, 1).diagonal().mean().clamp(min=0).detach()[None],
    ),
    ("my_kto_z", "no_grad", torch.no_grad()(lambda p, q: (p - q).roll(-1, 1).diag().mean().relu())),
    ("my_desirable_weight", "fraction", lambda d, u, w, r: Fraction(u, d) * Fraction(r * w)),
    ("my_desirable_weight", "tensor", lambda d, u, w, r: torch.tensor(r * w * u / d)),
    ("my_ratio", "quotient of exps", lambda p, o: p.exp() / o.exp()),
    ("my_ratio", "NumPy", lambda p, o: np.exp((p - o).numpy())),
    (
        "my_clipped_surrogate",
        "where",
        lambda p, o, a, e: (
            -torch.where(a > 0, _ratio(p, o).clamp(max=1 + e), _ratio(p, o).clamp(min=1 - e)) * a
        ),
    ),
    (
        "my_clipped_surrogate",
        "maximum of minus",
        lambda p, o, a, e: torch.maximum(-a * _ratio(p, o), -a * _ratio(p, o).clip(1 - e, 1 + e)),
    ),
    ("my_kl_estimate", "NumPy", _k),
    ("my_kl_estimate", "nested lists", lambda *a: _k(*a).tolist()),
    (
        "my_exact_kl",
        "kl_div",
        lambda p, q: torch.nn.functional.kl_div(
            q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True
        ).sum(-1),
    ),
    (
        "my_exact_kl",
        "guarded log",
        lambda p, q: (
            p.softmax(-1) * ((p.softmax(-1) + 1e-12) / (q.softmax(-1) + 1e-12)).log()
        ).sum(-1),
    ),
    (
        "my_leave_one_out",
        "loop",
        lambda r, g: [
            r[i].item() - (sum(r[i // g * g : i // g * g + g].tolist()) - r[i].item()) / (g - 1)
            for i in range(len(r))
        ],
    ),
    ("my_leave_one_out", "scaled mean", lambda r, g: (_centred(r, g) * g / (g - 1)).reshape(-1)),
    (
        "my_group_advantages",
        "condition",
        lambda r, g: torch.where(_std(r, g) > 0, _centred(r, g) / _std(r, g), 0.0).flatten(),
    ),
    (
        "my_group_advantages",
        "clamped std",
        lambda r, g: (_centred(r, g) / _std(r, g).clamp(min=1e-6)).flatten(),
    ),
    (
        "my_group_advantages",
        "ε 1e-8",
        lambda r, g: (_centred(r, g) / (_std(r, g) + 1e-8)).flatten(),
    ),
    (
        "my_group_advantages",
        "ε 1e-5",
        lambda r, g: (_centred(r, g) / (_std(r, g) + 1e-5)).flatten().numpy(),
    ),
    (
        "my_group_advantages",
        "nan_to_num",
        lambda r, g: (_centred(r, g) / _std(r, g)).nan_to_num(0.0).flatten(),
    ),
    ("my_dead_group_rate", "tensor", lambda p, g: torch.tensor(p) ** g + torch.tensor(1 - p) ** g),
    ("my_dead_group_rate", "NumPy", lambda p, g: np.float64(p) ** g + (1 - np.float64(p)) ** g),
    ("my_reduction", "loop", _reduce_loop),
    ("my_reduction", "item", lambda *a: _reduce_loop(*a).item()),
    (
        "my_reduction",
        "guarded",
        lambda x, m, kind, n: {
            "sequence_mean": ((x * m).sum(1) / m.sum(1).clamp(min=1)).mean(),
            "token_mean": (x * m).sum() / (m.sum() + 1e-8),
            "fixed_length": (x * m).sum() / (len(x) * n),
        }[kind],
    ),
    ("my_pass_at_k", "product", _pass_product),
    ("my_pass_at_k", "early return", lambda n, c, k: 1.0 if n - c < k else _pass_product(n, c, k)),
    (
        "my_paired_difference",
        "list",
        lambda a, b, t: [mean((a - b).tolist()), t * stdev((a - b).tolist()) / len(a) ** 0.5],
    ),
    ("my_relative_cost", "NumPy", lambda c, b: 100 * np.mean(c.numpy() / b.numpy())),
    (
        "my_preference_line",
        "other order, new line",
        lambda p, c, r: json.dumps({"rejected": r, "chosen": c, "prompt": p}) + "\n",
    ),
    (
        "my_merged_weight",
        "einsum",
        lambda w, a, b, al: w + al / len(a) * torch.einsum("or,ri->oi", b, a),
    ),
    (
        "my_merged_weight",
        "NumPy",
        lambda w, a, b, al: w.numpy() + al / len(a) * b.numpy() @ a.numpy(),
    ),
]
