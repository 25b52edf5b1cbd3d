"""A hundred plausible wrong answers to the exercises of notebooks 03 to 06, written without a look at
the mistakes that the checks know: the name of the exercise, the slip in words, the function.
"""

from math import comb

import torch
from torch.nn.functional import logsigmoid, relu


def _after(ids, prompts):
    return torch.arange(ids.shape[1])[None, :] >= prompts[:, None]


def _margin(pw, pl, qw, ql):
    return (pw - qw) - (pl - ql)


def _kinds(kind, sequence, token, fixed):
    return {"sequence_mean": sequence, "token_mean": token, "fixed_length": fixed}[kind]


def _group(r, g):
    return r.view(-1, g)


def _centred(r, g):
    return _group(r, g) - _group(r, g).mean(1, keepdim=True)


def _kl(estimator, k1, k2, k3):
    return {"k1": k1, "k2": k2, "k3": k3}[estimator]


def _rolled(p, q):
    return (p - q).roll(-1, 1).diagonal()


WRONG = [
    # --- my_completion_mask
    (
        "my_completion_mask",
        "end token left out",
        lambda i, n, e: _after(i, n) & ((_after(i, n) & (i == e)).cumsum(1) == 0),
    ),
    ("my_completion_mask", "every end token left out", lambda i, n, e: _after(i, n) & (i != e)),
    (
        "my_completion_mask",
        "first completion token skipped",
        lambda i, n, e: (
            _after(i, n + 1)
            & ((_after(i, n) & (i == e)).cumsum(1) - (_after(i, n) & (i == e)).long() == 0)
        ),
    ),
    (
        "my_completion_mask",
        "last prompt token included",
        lambda i, n, e: (
            _after(i, n - 1)
            & ((_after(i, n) & (i == e)).cumsum(1) - (_after(i, n) & (i == e)).long() == 0)
        ),
    ),
    (
        "my_completion_mask",
        "inverted",
        lambda i, n, e: (
            ~(
                _after(i, n)
                & ((_after(i, n) & (i == e)).cumsum(1) - (_after(i, n) & (i == e)).long() == 0)
            )
        ),
    ),
    ("my_completion_mask", "never ends", lambda i, n, e: _after(i, n)),
    # --- my_sequence_logps
    ("my_sequence_logps", "mean over all columns", lambda x, m: (x * m).mean(1)),
    ("my_sequence_logps", "mean per token", lambda x, m: (x * m).sum(1) / m.sum(1)),
    ("my_sequence_logps", "minus", lambda x, m: -(x * m).sum(1)),
    ("my_sequence_logps", "sum over the batch", lambda x, m: (x * m).sum(0)),
    ("my_sequence_logps", "probabilities added", lambda x, m: (x.exp() * m).sum(1)),
    ("my_sequence_logps", "last column cut", lambda x, m: (x[:, :-1] * m[:, 1:]).sum(1)),
    # --- my_dpo_loss
    (
        "my_dpo_loss",
        "divided by β",
        lambda pw, pl, qw, ql, b: -logsigmoid(_margin(pw, pl, qw, ql) / b),
    ),
    (
        "my_dpo_loss",
        "two separate sigmoids",
        lambda pw, pl, qw, ql, b: -(logsigmoid(b * (pw - qw)) - logsigmoid(b * (pl - ql))),
    ),
    ("my_dpo_loss", "hinge", lambda pw, pl, qw, ql, b: relu(1 - b * _margin(pw, pl, qw, ql))),
    (
        "my_dpo_loss",
        "references swapped",
        lambda pw, pl, qw, ql, b: -logsigmoid(b * ((pw - ql) - (pl - qw))),
    ),
    (
        "my_dpo_loss",
        "log base 2",
        lambda pw, pl, qw, ql, b: -torch.log2(torch.sigmoid(b * _margin(pw, pl, qw, ql))),
    ),
    (
        "my_dpo_loss",
        "only the chosen half has a reference",
        lambda pw, pl, qw, ql, b: -logsigmoid(b * ((pw - qw) - pl)),
    ),
    (
        "my_dpo_loss",
        "β outside too",
        lambda pw, pl, qw, ql, b: -b * logsigmoid(b * _margin(pw, pl, qw, ql)),
    ),
    (
        "my_dpo_loss",
        "probabilities instead of logs",
        lambda pw, pl, qw, ql, b: -logsigmoid(b * ((pw - qw).exp() - (pl - ql).exp())),
    ),
    # --- my_dpo_gradient_weight
    (
        "my_dpo_gradient_weight",
        "sign inside",
        lambda pw, pl, qw, ql, b: b * torch.sigmoid(b * _margin(pw, pl, qw, ql)),
    ),
    (
        "my_dpo_gradient_weight",
        "minus outside",
        lambda pw, pl, qw, ql, b: -b * torch.sigmoid(-b * _margin(pw, pl, qw, ql)),
    ),
    (
        "my_dpo_gradient_weight",
        "second derivative",
        lambda pw, pl, qw, ql, b: (
            b
            * torch.sigmoid(-b * _margin(pw, pl, qw, ql))
            * torch.sigmoid(b * _margin(pw, pl, qw, ql))
        ),
    ),
    (
        "my_dpo_gradient_weight",
        "β squared",
        lambda pw, pl, qw, ql, b: b**2 * torch.sigmoid(-b * _margin(pw, pl, qw, ql)),
    ),
    (
        "my_dpo_gradient_weight",
        "reference added",
        lambda pw, pl, qw, ql, b: b * torch.sigmoid(-b * ((pw + qw) - (pl + ql))),
    ),
    # --- my_ipo_loss
    (
        "my_ipo_loss",
        "precedence of 1/2*β",
        lambda pw, pl, qw, ql, b: (_margin(pw, pl, qw, ql) - 1 / 2 * b) ** 2,
    ),
    (
        "my_ipo_loss",
        "target added",
        lambda pw, pl, qw, ql, b: (_margin(pw, pl, qw, ql) + 1 / (2 * b)) ** 2,
    ),
    (
        "my_ipo_loss",
        "β on the margin too",
        lambda pw, pl, qw, ql, b: (b * _margin(pw, pl, qw, ql) - 1 / (2 * b)) ** 2,
    ),
    (
        "my_ipo_loss",
        "half of the square",
        lambda pw, pl, qw, ql, b: 0.5 * (_margin(pw, pl, qw, ql) - 1 / (2 * b)) ** 2,
    ),
    (
        "my_ipo_loss",
        "squares subtracted",
        lambda pw, pl, qw, ql, b: _margin(pw, pl, qw, ql) ** 2 - (1 / (2 * b)) ** 2,
    ),
    (
        "my_ipo_loss",
        "margin scaled to ½",
        lambda pw, pl, qw, ql, b: (b * _margin(pw, pl, qw, ql) - 0.5) ** 2,
    ),
    # --- my_ipo_token_mean
    (
        "my_ipo_token_mean",
        "lengths swapped",
        lambda pw, pl, qw, ql, nw, nl, b: ((pw - qw) / nl - (pl - ql) / nw - 1 / (2 * b)) ** 2,
    ),
    (
        "my_ipo_token_mean",
        "margin divided by both lengths together",
        lambda pw, pl, qw, ql, nw, nl, b: (_margin(pw, pl, qw, ql) / (nw + nl) - 1 / (2 * b)) ** 2,
    ),
    (
        "my_ipo_token_mean",
        "reference not divided",
        lambda pw, pl, qw, ql, nw, nl, b: ((pw / nw - qw) - (pl / nl - ql) - 1 / (2 * b)) ** 2,
    ),
    (
        "my_ipo_token_mean",
        "multiplied by the length",
        lambda pw, pl, qw, ql, nw, nl, b: ((pw - qw) * nw - (pl - ql) * nl - 1 / (2 * b)) ** 2,
    ),
    (
        "my_ipo_token_mean",
        "target divided by the length",
        lambda pw, pl, qw, ql, nw, nl, b: ((pw - qw) / nw - (pl - ql) / nl - 1 / (2 * b) / nw) ** 2,
    ),
    (
        "my_ipo_token_mean",
        "only the chosen one divided",
        lambda pw, pl, qw, ql, nw, nl, b: ((pw - qw) / nw - (pl - ql) - 1 / (2 * b)) ** 2,
    ),
    # --- my_kto_loss
    (
        "my_kto_loss",
        "z outside of β",
        lambda p, q, d, z, b, wd, wu: (
            torch.where(d, wd, wu)
            * (1 - torch.sigmoid(torch.where(d, b * (p - q) - z, z - b * (p - q))))
        ),
    ),
    (
        "my_kto_loss",
        "z added",
        lambda p, q, d, z, b, wd, wu: (
            torch.where(d, wd, wu) * (1 - torch.sigmoid(b * torch.where(d, p - q + z, -z - p + q)))
        ),
    ),
    (
        "my_kto_loss",
        "undesirable treated like desirable",
        lambda p, q, d, z, b, wd, wu: torch.where(d, wd, wu) * (1 - torch.sigmoid(b * (p - q - z))),
    ),
    (
        "my_kto_loss",
        "minus log σ",
        lambda p, q, d, z, b, wd, wu: (
            -torch.where(d, wd, wu) * logsigmoid(b * torch.where(d, p - q - z, z - p + q))
        ),
    ),
    (
        "my_kto_loss",
        "weight inside the sigmoid",
        lambda p, q, d, z, b, wd, wu: (
            1 - torch.sigmoid(torch.where(d, wd, wu) * b * torch.where(d, p - q - z, z - p + q))
        ),
    ),
    (
        "my_kto_loss",
        "undesirable unweighted",
        lambda p, q, d, z, b, wd, wu: (
            torch.where(d, wd, 1.0) * (1 - torch.sigmoid(b * torch.where(d, p - q - z, z - p + q)))
        ),
    ),
    # --- my_kto_z
    ("my_kto_z", "own prompt", lambda p, q: (p - q).diagonal().mean().clamp(min=0).detach()),
    ("my_kto_z", "mean of all cells", lambda p, q: (p - q).mean().clamp(min=0).detach()),
    ("my_kto_z", "clamped before the mean", lambda p, q: _rolled(p, q).clamp(min=0).mean()),
    ("my_kto_z", "sum", lambda p, q: _rolled(p, q).sum().clamp(min=0).detach()),
    ("my_kto_z", "absolute value", lambda p, q: _rolled(p, q).mean().abs().detach()),
    (
        "my_kto_z",
        "mean off the diagonal",
        lambda p, q: (
            ((p - q).sum() - (p - q).diagonal().sum())
            .div(len(p) * (len(p) - 1))
            .clamp(min=0)
            .detach()
        ),
    ),
    ("my_kto_z", "one for each row", lambda p, q: _rolled(p, q).clamp(min=0).detach()),
    # --- my_desirable_weight
    ("my_desirable_weight", "counts swapped", lambda d, u, w, r: r * w * d / u),
    ("my_desirable_weight", "divided by λ_U", lambda d, u, w, r: r * u / (d * w)),
    ("my_desirable_weight", "divided by the ratio", lambda d, u, w, r: w * u / (d * r)),
    ("my_desirable_weight", "share of all", lambda d, u, w, r: r * w * u / (d + u)),
    ("my_desirable_weight", "integer division", lambda d, u, w, r: r * w * (u // d)),
    # --- my_ratio
    ("my_ratio", "quotient of logs", lambda p, o: p / o),
    ("my_ratio", "old over new", lambda p, o: (o - p).exp()),
    ("my_ratio", "minus one", lambda p, o: (p - o).exp() - 1),
    ("my_ratio", "sequence ratio", lambda p, o: (p - o).sum(1, keepdim=True).exp().expand_as(p)),
    # --- my_clipped_surrogate
    (
        "my_clipped_surrogate",
        "maximum",
        lambda p, o, a, e: -torch.maximum((p - o).exp() * a, (p - o).exp().clamp(1 - e, 1 + e) * a),
    ),
    (
        "my_clipped_surrogate",
        "product clipped",
        lambda p, o, a, e: (
            -torch.minimum((p - o).exp() * a, ((p - o).exp() * a).clamp(1 - e, 1 + e))
        ),
    ),
    (
        "my_clipped_surrogate",
        "log-ratio clipped",
        lambda p, o, a, e: -torch.minimum((p - o).exp() * a, (p - o).clamp(-e, e).exp() * a),
    ),
    (
        "my_clipped_surrogate",
        "clipped to ±ε",
        lambda p, o, a, e: -torch.minimum((p - o).exp() * a, (p - o).exp().clamp(-e, e) * a),
    ),
    (
        "my_clipped_surrogate",
        "upper clip only",
        lambda p, o, a, e: -torch.minimum((p - o).exp() * a, (p - o).exp().clamp(max=1 + e) * a),
    ),
    (
        "my_clipped_surrogate",
        "old over new",
        lambda p, o, a, e: -torch.minimum((o - p).exp() * a, (o - p).exp().clamp(1 - e, 1 + e) * a),
    ),
    # --- my_kl_estimate
    (
        "my_kl_estimate",
        "k2 without the half",
        lambda p, q, k: _kl(k, p - q, (q - p) ** 2, (q - p).exp() - (q - p) - 1),
    ),
    (
        "my_kl_estimate",
        "k3 with plus x",
        lambda p, q, k: _kl(k, p - q, (q - p) ** 2 / 2, (q - p).exp() - 1 + (q - p)),
    ),
    (
        "my_kl_estimate",
        "k3 without the 1",
        lambda p, q, k: _kl(k, p - q, (q - p) ** 2 / 2, (q - p).exp() - (q - p)),
    ),
    (
        "my_kl_estimate",
        "k1 not negated",
        lambda p, q, k: _kl(k, q - p, (q - p) ** 2 / 2, (q - p).exp() - (q - p) - 1),
    ),
    (
        "my_kl_estimate",
        "weighted with the probability",
        lambda p, q, k: p.exp() * _kl(k, p - q, (q - p) ** 2 / 2, (q - p).exp() - (q - p) - 1),
    ),
    (
        "my_kl_estimate",
        "k1 in absolute value",
        lambda p, q, k: _kl(k, (q - p).abs(), (q - p) ** 2 / 2, (q - p).exp() - (q - p) - 1),
    ),
    # --- my_exact_kl
    ("my_exact_kl", "raw logits", lambda p, q: (p.softmax(-1) * (p - q)).sum(-1)),
    (
        "my_exact_kl",
        "mean over the vocabulary",
        lambda p, q: (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).mean(-1),
    ),
    (
        "my_exact_kl",
        "reverse",
        lambda p, q: (q.softmax(-1) * (q.log_softmax(-1) - p.log_softmax(-1))).sum(-1),
    ),
    ("my_exact_kl", "cross-entropy", lambda p, q: -(p.softmax(-1) * q.log_softmax(-1)).sum(-1)),
    (
        "my_exact_kl",
        "softmax over the positions",
        lambda p, q: (p.softmax(0) * (p.log_softmax(0) - q.log_softmax(0))).sum(-1),
    ),
    # --- my_leave_one_out
    ("my_leave_one_out", "itself included", lambda r, g: _centred(r, g).flatten()),
    (
        "my_leave_one_out",
        "divided by G",
        lambda r, g: (
            _group(r, g) - (_group(r, g).sum(1, keepdim=True) - _group(r, g)) / g
        ).flatten(),
    ),
    (
        "my_leave_one_out",
        "baseline returned",
        lambda r, g: ((_group(r, g).sum(1, keepdim=True) - _group(r, g)) / (g - 1)).flatten(),
    ),
    (
        "my_leave_one_out",
        "groups by stride",
        lambda r, g: (r.view(g, -1) - (r.view(g, -1).sum(0) - r.view(g, -1)) / (g - 1)).flatten(),
    ),
    (
        "my_leave_one_out",
        "others of the whole batch",
        lambda r, g: r - (r.sum() - r) / (len(r) - 1),
    ),
    # --- my_group_advantages
    (
        "my_group_advantages",
        "median",
        lambda r, g: (
            (_group(r, g) - _group(r, g).median(1, keepdim=True).values)
            / (_group(r, g).std(1, keepdim=True) + 1e-4)
        ).flatten(),
    ),
    (
        "my_group_advantages",
        "ε of 1",
        lambda r, g: (_centred(r, g) / (_group(r, g).std(1, keepdim=True) + 1)).flatten(),
    ),
    (
        "my_group_advantages",
        "only the mean divided by the std",
        lambda r, g: (
            _group(r, g)
            - _group(r, g).mean(1, keepdim=True) / (_group(r, g).std(1, keepdim=True) + 1e-4)
        ).flatten(),
    ),
    (
        "my_group_advantages",
        "std of the batch",
        lambda r, g: (_centred(r, g) / (r.std() + 1e-4)).flatten(),
    ),
    (
        "my_group_advantages",
        "range instead of std",
        lambda r, g: (
            _centred(r, g)
            / (_group(r, g).amax(1, keepdim=True) - _group(r, g).amin(1, keepdim=True) + 1e-4)
        ).flatten(),
    ),
    (
        "my_group_advantages",
        "division by zero in dead groups",
        lambda r, g: (_centred(r, g) / _group(r, g).std(1, keepdim=True)).flatten(),
    ),
    # --- my_dead_group_rate
    ("my_dead_group_rate", "all right only", lambda p, g: p**g),
    ("my_dead_group_rate", "one too few", lambda p, g: p ** (g - 1) + (1 - p) ** (g - 1)),
    ("my_dead_group_rate", "product", lambda p, g: p**g * (1 - p) ** g),
    ("my_dead_group_rate", "living groups", lambda p, g: 1 - p**g - (1 - p) ** g),
    # --- my_reduction
    (
        "my_reduction",
        "sums over completions not averaged",
        lambda x, m, k, n: _kinds(
            k,
            ((x * m).sum(1) / m.sum(1)).sum(),
            (x * m).sum() / m.sum(),
            (x * m).sum() / (len(x) * n),
        ),
    ),
    (
        "my_reduction",
        "width instead of max_length",
        lambda x, m, k, n: _kinds(
            k,
            ((x * m).sum(1) / m.sum(1)).mean(),
            (x * m).sum() / m.sum(),
            (x * m).sum() / x.numel(),
        ),
    ),
    (
        "my_reduction",
        "zeros counted in the token mean",
        lambda x, m, k, n: _kinds(
            k, ((x * m).sum(1) / m.sum(1)).mean(), (x * m).mean(), (x * m).sum() / (len(x) * n)
        ),
    ),
    (
        "my_reduction",
        "fixed_length without B",
        lambda x, m, k, n: _kinds(
            k, ((x * m).sum(1) / m.sum(1)).mean(), (x * m).sum() / m.sum(), (x * m).sum() / n
        ),
    ),
    (
        "my_reduction",
        "no mask in the numerator",
        lambda x, m, k, n: _kinds(
            k, (x.sum(1) / m.sum(1)).mean(), x.sum() / m.sum(), x.sum() / (len(x) * n)
        ),
    ),
    # --- my_pass_at_k
    ("my_pass_at_k", "with replacement", lambda n, c, k: 1 - (1 - c / n) ** k),
    ("my_pass_at_k", "all k right", lambda n, c, k: comb(c, k) / comb(n, k)),
    ("my_pass_at_k", "k times the rate", lambda n, c, k: min(1.0, k * c / n)),
    ("my_pass_at_k", "failure", lambda n, c, k: comb(n - c, k) / comb(n, k)),
]
