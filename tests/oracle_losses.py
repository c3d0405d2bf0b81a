"""Loss and advantages once more: float64, one row and one token at a time, straight from papers.

Nothing of grpo is called here. Where a paper stops a gradient, `frozen` stands for the
log-probabilities that it treats as constants, so that finite differences of `live` are the
gradient.
"""

import math

import numpy as np

KL = {
    "k1": lambda lp, ref: lp - ref,
    "k2": lambda lp, ref: 0.5 * (lp - ref) ** 2,
    "k3": lambda lp, ref: math.exp(ref - lp) - (ref - lp) - 1,
}


def clip(x, low, high):
    return min(max(x, low), high)


def maxrl(groups):
    """(r - r̂) / r̂ with r̂ the group's mean reward; a group without any reward teaches nothing."""
    means = [sum(group) / len(group) for group in groups]
    return [
        [(r - mean) / mean if mean else 0.0 for r in group]
        for group, mean in zip(groups, means, strict=True)
    ]


def reinforce_pp_baseline(groups):
    """r - the group's mean, over the sample deviation of that in the whole batch."""
    centred = [[r - sum(group) / len(group) for r in group] for group in groups]
    every = [a for group in centred for a in group]
    mean = sum(every) / len(every)
    deviation = math.sqrt(sum((a - mean) ** 2 for a in every) / (len(every) - 1))
    return [[a / deviation for a in group] for group in centred]


def is_masked(o, logprob, old_logprob, advantage):
    """Whether DPPO drops a token: equations 12 to 14 of arXiv:2602.04879."""
    p, q = math.exp(logprob), math.exp(old_logprob)
    if o.surrogate == "dppo_tv":
        divergence = abs(p - q)
    else:
        divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    is_away = (advantage > 0 and p > q) or (advantage < 0 and p < q)
    return is_away and divergence > o.divergence_limit


def token_objective(o, ratio, advantage, live, frozen_ratio, frozen, old):
    """J of one token."""
    if o.surrogate == "reinforce":
        return advantage * live
    if o.surrogate in ("dppo_tv", "dppo_kl"):
        return 0.0 if is_masked(o, frozen, old, advantage) else ratio * advantage
    if o.surrogate == "cispo":
        return clip(frozen_ratio, 1 - o.clip_low, 1 + o.clip_high) * advantage * live
    if o.surrogate == "sapo":
        tau = o.tau_positive if advantage > 0 else o.tau_negative
        return 4 / tau / (1 + math.exp(-tau * (ratio - 1))) * advantage
    if o.ratio == "geometric":  # clipped already, token by token
        return ratio * advantage
    value = min(ratio * advantage, clip(ratio, 1 - o.clip_low, 1 + o.clip_high) * advantage)
    if o.dual_clip is not None and advantage < 0:
        value = max(value, o.dual_clip * advantage)
    return value


def row_ratios(o, live, old, advantage):
    """The ratio at every token of one row."""
    logs = [a - b for a, b in zip(live, old, strict=True)]
    if o.ratio == "token":
        return [math.exp(x) for x in logs]
    if o.ratio == "geometric":
        top, bottom = math.log(1 + o.clip_high), math.log(1 - o.clip_low)
        logs = [min(x, top) if advantage > 0 else max(x, bottom) for x in logs]
    mean = sum(logs) / len(logs)
    return [math.exp(mean)] * len(logs)


def loss(o, live, frozen, batch, limit):
    """The loss of a batch: mask, truncated, advantage, old, ref, sample, entropy, teacher."""
    mask = batch["mask"].astype(bool)
    rows = [
        b for b in range(len(mask))
        if mask[b].any() and not (o.mask_truncated and batch["truncated"][b])
    ]  # fmt: skip
    tokens = sum(int(mask[b].sum()) for b in rows)
    total = 0.0
    for b in rows:
        at = np.flatnonzero(mask[b])
        advantage = float(batch["advantage"][b])
        now, then = [live[b, c] for c in at], [frozen[b, c] for c in at]
        old = then if batch["old"] is None else [float(batch["old"][b, c]) for c in at]
        advantages = [advantage] * len(at)
        if o.teacher_coef:  # reverse KL: how much likelier the student made it than the teacher
            told = [float(batch["teacher"][b, c]) for c in at]
            advantages = [
                advantage + o.teacher_coef * (t - s) for t, s in zip(told, old, strict=True)
            ]
        ratios = row_ratios(o, now, old, advantage)
        fixed = row_ratios(o, then, old, advantage)
        got = old if batch["sample"] is None else [float(batch["sample"][b, c]) for c in at]
        drift = sum(x - y for x, y in zip(got, then, strict=True)) / len(at)
        is_far = o.off_policy_limit is not None and drift > o.off_policy_limit
        if o.correction is not None:
            gaps = [x - float(batch["sample"][b, c]) for x, c in zip(old, at, strict=True)]
            if o.correction_level == "sequence":
                gaps = [sum(gaps)] * len(gaps)
            weights = [math.exp(gap) for gap in gaps]
            if o.correction == "cap":
                weights = [min(w, o.correction_cap) for w in weights]
            else:
                inside = [1 / o.correction_cap <= w <= o.correction_cap for w in weights]
                weights = [w if ok else 0.0 for w, ok in zip(weights, inside, strict=True)]
        else:
            weights = [1.0] * len(at)
        divisor = {
            "token": tokens,
            "sequence": len(rows) * len(at),
            "constant": len(rows) * limit,
            "sum": len(rows),
        }[o.aggregation]
        for i, c in enumerate(at):
            gain = token_objective(o, ratios[i], advantages[i], now[i], fixed[i], then[i], old[i])
            value = 0.0 if is_far and advantages[i] < 0 else -weights[i] * gain
            if batch["ref"] is not None and o.kl_in == "loss":
                value += o.kl_coef * KL[o.kl](now[i], float(batch["ref"][b, c]))
            if batch["entropy"] is not None:
                value -= o.entropy_coef * float(batch["entropy"][b, c])
            total += value / divisor
    return total


def gradient(o, logprob, batch, limit, step=1e-6):
    """Central differences of `loss` by each live log-probability."""
    logprob = np.asarray(logprob, np.float64)
    grad = np.zeros_like(logprob)
    for b, c in np.argwhere(batch["mask"]):
        ends = []
        for sign in (1, -1):
            live = logprob.copy()
            live[b, c] += sign * step
            ends.append(loss(o, live, logprob, batch, limit))
        grad[b, c] = (ends[0] - ends[1]) / (2 * step)
    return grad
