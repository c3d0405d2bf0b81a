"""Gemma 2 and 3 in float64 NumPy, written from the published facts, one token's row at a time.

Slow and plain on purpose: loops over layers and heads, no caches, no stacking, no padding. It reads
our parameter tree, and shares nothing else with `models`.
"""

import numpy as np


def norm(x, scale, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * (1 + scale)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rotate(x, position, theta, factor):
    half = x.shape[-1] // 2
    out = np.empty_like(x)
    for plane in range(half):
        angle = position / factor / theta ** (2 * plane / x.shape[-1])
        cos, sin = np.cos(angle), np.sin(angle)
        first, second = x[..., plane], x[..., plane + half]
        out[..., plane] = first * cos - second * sin
        out[..., plane + half] = second * cos + first * sin
    return out


def cap(x, limit):
    return x if limit is None else limit * np.tanh(x / limit)


def logits(config, params, ids):
    """logits [T, V] of one unpadded row."""
    flat = {}

    def walk(tree, path):
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(value, (*path, key))
            else:
                flat["/".join((*path, key))] = np.asarray(value, np.float64)

    walk(params, ())
    table = flat["embedder/table"]
    x = table[ids] * np.sqrt(config.width)
    for layer, kind in enumerate(config.kinds):

        def w(name, layer=layer):
            return flat[f"layers/{name}"][layer]

        local = kind == "local"
        theta = config.local_theta if local else config.global_theta
        factor = 1.0 if local else config.global_rope_factor
        h = norm(x, w("pre_attention_norm/scale"), config.norm_eps)
        heads = []
        for n in range(config.num_heads):
            kv = n // (config.num_heads // config.num_kv_heads)
            q, k = h @ w("attention/q/w")[:, n], h @ w("attention/k/w")[:, kv]
            v = h @ w("attention/v/w")[:, kv]
            if config.family == "gemma3":
                q = norm(q, w("attention/q_norm/scale"), config.norm_eps)
                k = norm(k, w("attention/k_norm/scale"), config.norm_eps)
            q = np.stack([rotate(row, t, theta, factor) for t, row in enumerate(q)])
            k = np.stack([rotate(row, t, theta, factor) for t, row in enumerate(k)])
            out = np.empty_like(q)
            for t in range(len(ids)):
                seen = range(max(0, t - config.window + 1) if local else 0, t + 1)
                score = cap(
                    q[t] @ k[seen].T / np.sqrt(config.query_scalar), config.attention_softcap
                )
                weight = np.exp(score - score.max())
                out[t] = weight / weight.sum() @ v[seen]
            heads.append(out @ w("attention/o/w")[n])
        x = x + norm(sum(heads), w("post_attention_norm/scale"), config.norm_eps)
        h = norm(x, w("pre_ffw_norm/scale"), config.norm_eps)
        h = (gelu(h @ w("mlp/gate/w")) * (h @ w("mlp/up/w"))) @ w("mlp/down/w")
        x = x + norm(h, w("post_ffw_norm/scale"), config.norm_eps)
    return cap(norm(x, flat["final_norm/scale"], config.norm_eps) @ table.T, config.logit_softcap)
