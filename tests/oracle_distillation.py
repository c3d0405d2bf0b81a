"""Distillation in float64 NumPy, from all logits of a handful of tokens."""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def generalised_jsd(beta, p, t):
    """D_β of two distributions, by the definition."""
    if beta == 0:
        return (t * np.log(t / p)).sum(axis=-1)
    if beta == 1:
        return (p * np.log(p / t)).sum(axis=-1)
    m = (1 - beta) * p + beta * t
    return beta * (t * np.log(t / m)).sum(axis=-1) + (1 - beta) * (p * np.log(p / m)).sum(axis=-1)


def bucketed(p, ids):
    """A distribution over some tokens and the rest of them."""
    kept = np.take_along_axis(p, ids, axis=-1)
    return np.concatenate([kept, 1 - kept.sum(axis=-1, keepdims=True)], axis=-1)


def distillation(z, teacher_z, target, mask, own, *, beta, temperature, coef, sft_coef, top_k):
    """L of whole rows, and the mean divergence of each quarter of the positions."""
    z, teacher_z = np.asarray(z, float), np.asarray(teacher_z, float)
    p, t = softmax(z / temperature), softmax(teacher_z / temperature)
    if top_k:
        ids = np.argsort(-t, axis=-1, kind="stable")[..., :top_k]
        p, t = bucketed(p, ids), bucketed(t, ids)
    each = generalised_jsd(beta, p, t)
    total, count, nll = 0.0, 0, 0.0
    quarters = [[], [], [], []]
    for row in range(len(target)):
        for c in range(len(target[row])):
            if not mask[row][c]:
                continue
            total, count = total + each[row, c], count + 1
            quarters[4 * c // len(target[row])].append(each[row, c])
            if not own:
                nll -= np.log(softmax(z[row, c])[target[row][c]])
    means = [float(np.mean(quarter)) if quarter else 0.0 for quarter in quarters]
    return (coef * total + sft_coef * nll) / count, means
