"""One iteration of a GRPO stage in float64 NumPy, from sampled tokens to the parameters after it.

    reward      r = Σ_f weight_f · gate_f · reward_f - overlong - kl_coef · Σ_t KL_t
    advantage   A = (r - baseline) / (scale + eps)
    loss        L = Σ_t weight_t ( - w_t J(ρ_t, A_t) + kl_coef · KL_t - entropy_coef · H_t )
                A_t = A - teacher_coef · log(π_old / π_teacher)
    update      θ <- AdamW(θ, ∇L)       for each epoch, for each minibatch of whole groups

Written from the papers and from docs/models.md and docs/grpo.md, one unpadded row at a time: no
batches, no masks, no microbatches, no caches. Nothing here is taken from the project but the names
of parameters and of config fields. Gradients come from tests/tape.py.
"""

import math
import re
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from tests import tape

Arrays = dict[str, Any]  # path -> array, or a node of the tape
LIMIT = 20.0  # of log-ratios


class Weights(NamedTuple):
    """A policy: parameters, and perhaps an adapter y = x W + scale (x a) b."""

    params: Arrays
    adapter: Arrays | None = None
    scale: float = 0.0

    @property
    def trained(self) -> Arrays:
        return self.adapter or self.params

    def trained_as(self, arrays: Arrays) -> "Weights":
        if self.adapter:
            return self._replace(adapter=arrays)
        return self._replace(params=arrays)

    def merged(self) -> "Weights":
        """Parameters alone: W + scale · a b."""
        params = dict(self.params)
        adapter = self.adapter or {}
        for path in adapter:
            if path.endswith("/a"):
                a, b = (adapter[path[:-1] + ab] for ab in "ab")
                delta = [np.tensordot(a[i], b[i], axes=1) for i in range(len(a))]
                params[path[:-1] + "w"] = params[path[:-1] + "w"] + self.scale * np.array(delta)
        return Weights(params)


class Row(NamedTuple):
    """A completion as it was sampled, and what each reward function says of it (NaN: nothing)."""

    prompt: list[int]
    completion: list[int]  # up to the first stop token, that one included
    truncated: bool
    sample_logprob: np.ndarray
    rewards: dict[str, float]


class Learnt(NamedTuple):
    """What the updates of an iteration know of a row, fixed before the first of them."""

    row: Row
    used: bool  # False: of a group that was left out
    advantage: float
    old_logprob: np.ndarray | None
    ref_logprob: np.ndarray | None
    teacher_logprob: np.ndarray | None


# The model


def norm(x, gain, eps):
    square = tape.total(x * x, axis=-1) / x.shape[-1]
    return x * tape.power(square + eps, -0.5) * (gain + 1.0)


def capped(x, cap):
    return x if cap is None else tape.tanh(x / cap) * cap


def rotated(x, theta, factor):
    """Plane i turns by position / factor / theta^(2i/H); its two dimensions are i and i + H/2."""
    length, _, width = x.shape
    plane = np.arange(width) % (width // 2)
    angle = np.arange(length)[:, None] / factor / theta ** (2 * plane / width)
    turn = np.zeros((width, width))
    for i in range(width // 2):
        turn[i + width // 2, i], turn[i, i + width // 2] = -1.0, 1.0
    quarter = tape.einsum("tnh,hk->tnk", x, turn)
    return x * np.cos(angle)[:, None] + quarter * np.sin(angle)[:, None]


def scores_of(size, weights: Weights, ids, first: int):
    """z [T - first, V]: the logits that follow the tokens from `first` on, in one row."""
    x = tape.Node(0.0) + weights.params["embedder/table"][np.array(ids)] * math.sqrt(size.width)
    for layer, kind in enumerate(size.kinds):
        local = kind == "local"

        def w(name, layer=layer):
            return weights.params[f"layers/{name}"][layer]

        def linear(name, x, inputs, outputs, w=w, layer=layer):
            y = tape.einsum(f"t{inputs},{inputs}{outputs}->t{outputs}", x, w(f"{name}/w"))
            adapter = weights.adapter or {}
            if f"layers/{name}/a" in adapter:
                a, b = (adapter[f"layers/{name}/{ab}"][layer] for ab in "ab")
                low = tape.einsum(f"t{inputs},{inputs}r->tr", x, a)
                y = y + tape.einsum(f"tr,r{outputs}->t{outputs}", low, b) * weights.scale
            return y

        h = norm(x, w("pre_attention_norm/scale"), size.norm_eps)
        q, k, v = (linear(f"attention/{name}", h, "d", "nh") for name in "qkv")
        if size.family == "gemma3":
            q = norm(q, w("attention/q_norm/scale"), size.norm_eps)
            k = norm(k, w("attention/k_norm/scale"), size.norm_eps)
        theta = size.local_theta if local else size.global_theta
        q, k = (rotated(z, theta, 1.0 if local else size.global_rope_factor) for z in (q, k))
        reads = np.arange(size.num_heads) // (size.num_heads // size.num_kv_heads)
        k, v = k[:, reads], v[:, reads]
        score = capped(tape.einsum("tnh,snh->nts", q, k) / math.sqrt(size.query_scalar),
                       size.attention_softcap)  # fmt: skip
        ago = np.arange(len(ids))[:, None] - np.arange(len(ids))
        seen = (ago >= 0) & (ago < (size.window if local else len(ids)))
        weight = tape.where(seen, tape.exp(score - score.value.max()), 0.0)
        weight = weight / tape.total(weight, axis=-1)
        h = linear("attention/o", tape.einsum("nts,snh->tnh", weight, v), "nh", "d")
        x = x + norm(h, w("post_attention_norm/scale"), size.norm_eps)
        h = norm(x, w("pre_ffw_norm/scale"), size.norm_eps)
        gate, up = (linear(f"mlp/{name}", h, "d", "f") for name in ("gate", "up"))
        slope = tape.tanh((gate + gate * gate * gate * 0.044715) * math.sqrt(2 / math.pi))
        h = linear("mlp/down", gate * 0.5 * (slope + 1.0) * up, "f", "d")
        x = x + norm(h, w("post_ffw_norm/scale"), size.norm_eps)
    x = norm(x[first:], weights.params["final_norm/scale"], size.norm_eps)
    return capped(tape.einsum("td,vd->tv", x, weights.params["embedder/table"]), size.logit_softcap)


def token_scores(size, weights: Weights, prompt, completion, temperature: float):
    """log π(token) and the entropy of π at each token of a completion."""
    ids = [*prompt, *completion]
    z = scores_of(size, weights, ids[:-1], len(prompt) - 1) / temperature
    top = z.value.max(axis=-1, keepdims=True)
    log_sum = tape.log(tape.total(tape.exp(z - top), axis=-1)) + top
    logprob = (z - log_sum)[np.arange(len(completion)), np.array(completion)]
    entropy = log_sum[:, 0] - tape.total(tape.exp(z - log_sum) * z, axis=-1)[:, 0]
    return logprob, entropy


def logprobs(size, weights: Weights, row: Row, temperature: float) -> np.ndarray:
    """log π of a row's tokens, as numbers."""
    return token_scores(size, weights, row.prompt, row.completion, temperature)[0].value


def greedy(size, weights: Weights, prompt, stops, count: int) -> tuple[list[int], float]:
    """The likeliest tokens, up to a stop token, and by how much the closest second is behind."""
    ids, lead = list(prompt), math.inf
    while len(ids) < len(prompt) + count and not (len(ids) > len(prompt) and ids[-1] in stops):
        z = scores_of(size, weights, ids, len(ids) - 1).value[0]
        second, first = np.sort(z)[-2:]
        ids, lead = [*ids, int(z.argmax())], min(lead, first - second)
    return ids[len(prompt) :], lead


# Rewards and advantages


def total_reward(rewards: dict[str, float], table) -> tuple[float, dict[str, float]]:
    """The weighted sum, and its parts: each reward behind its gate."""
    parts = {}
    for name, entry in table.items():
        gate = 1.0 if entry["gate"] is None else rewards[entry["gate"]]
        parts[name] = 0.0 if gate == 0 else gate * rewards[name]
    return sum(e["weight"] * parts[n] for n, e in table.items() if e["weight"]), parts


def all_equal(rewards) -> bool:
    valid = rewards[np.isfinite(rewards)]
    return len(valid) < 2 or np.ptp(valid) <= 1e-6 * np.abs(valid).max()


def advantages(reward_PG, baseline, scale, eps):
    """A = (r - baseline) / (scale + eps) over the rewards there are."""
    valid_PG = np.isfinite(reward_PG)
    advantage_PG = np.zeros_like(reward_PG)
    for p, g in zip(*np.nonzero(valid_PG), strict=True):
        group, batch = reward_PG[p][valid_PG[p]], reward_PG[valid_PG]
        others = reward_PG[p][valid_PG[p] & (np.arange(reward_PG.shape[1]) != g)]
        if all_equal(batch if baseline == "batch" else group):
            continue
        centre = {"group": group, "batch": batch, "leave_one_out": others}[baseline].mean()
        width = 1.0
        if scale != "none":
            width = np.std({"group": group, "batch": batch}[scale], ddof=1) + eps
        advantage_PG[p, g] = (reward_PG[p, g] - centre) / width
    return advantage_PG


def compare(rows_PG, penalty_PG, stage) -> tuple[np.ndarray, np.ndarray]:
    """advantage_PG, and which groups have something to teach."""
    loss, table = stage["loss"], stage["rewards"]
    how = loss["baseline"], loss["scale"], loss["eps"]
    got = [[total_reward(row.rewards, table) for row in group] for group in rows_PG]
    reward_PG = np.array([[total for total, _ in group] for group in got])
    if loss["decoupled"]:
        part = {
            name: np.array([[parts[name] for _, parts in group] for group in got])
            for name, entry in table.items()
            if entry["weight"]
        }
        each = {name: advantages(part_PG, *how) for name, part_PG in part.items()}
        sum_PG = sum(table[name]["weight"] * each_PG for name, each_PG in each.items())
        heard_PG = np.any([np.isfinite(part_PG) for part_PG in part.values()], axis=0)
        sum_PG = np.where(heard_PG, sum_PG, np.nan)
        idle_PG = np.all([each_PG == 0 for each_PG in each.values()], axis=0)
        teaches_P = [any(not all_equal(x[p]) for x in part.values()) for p in range(len(rows_PG))]
        normal_PG = advantages(sum_PG, "batch", "batch", loss["eps"])
        return np.where(idle_PG, 0.0, normal_PG), np.array(teaches_P)
    teaches_P = np.array([not all_equal(group) for group in reward_PG])
    if loss["overlong_buffer"] is not None:
        limit, share = stage["max_new_tokens"], loss["overlong_buffer"]
        length_PG = np.array([[len(row.completion) for row in group] for group in rows_PG])
        excess_PG = np.clip((length_PG - (1 - share) * limit) / (share * limit), 0, 1)
        reward_PG = reward_PG - loss["overlong_penalty"] * excess_PG
    return advantages(reward_PG - penalty_PG, *how), teaches_P


# The loss and the update


def kl(kind: str, logprob, ref_logprob):
    """KL(policy ‖ reference) of each token, estimated: k1, k2, k3."""
    if kind == "k1":
        return logprob - ref_logprob
    d = -(logprob - ref_logprob)
    return d * d * 0.5 if kind == "k2" else tape.exp(d) - d - 1.0


def row_loss(size, weights: Weights, learnt: Learnt, weight, stage):
    """Σ_t weight_t loss_t of a row, and how many of its tokens met which option."""
    loss, A, row = stage["loss"], learnt.advantage, learnt.row  # A of all tokens, or of each
    logprob, entropy = token_scores(
        size, weights, row.prompt, row.completion, stage["sampling"]["temperature"]
    )
    old = logprob.value if learnt.old_logprob is None else learnt.old_logprob
    if learnt.teacher_logprob is not None:
        A = A - loss["teacher_coef"] * (old - learnt.teacher_logprob)
    log_ratio = logprob - old
    assert np.abs(log_ratio.value).max() < LIMIT
    if loss["ratio"] == "sequence":
        log_ratio = tape.total(log_ratio, axis=-1) / len(row.completion) + np.zeros(len(old))
    ratio = tape.exp(log_ratio)
    seen = Counter(learnt=1)
    if loss["surrogate"] == "clip":
        low, high = 1 - loss["clip_low"], 1 + loss["clip_high"]
        below, above = (ratio.value < low) & (A < 0), (ratio.value > high) & (A > 0)
        gain = tape.where(below, low * A, tape.where(above, high * A, ratio * A))
        seen |= {"clipped below": below.sum(), "clipped above": above.sum()}
        seen["turned by the teacher"] = np.sum(np.sign(A) * np.sign(learnt.advantage) < 0)
    elif loss["surrogate"] == "reinforce":
        gain = logprob * A
    else:
        raise ValueError(f"surrogate={loss['surrogate']!r}: this oracle knows clip and reinforce")
    if loss["correction"] == "cap":
        gap = old - row.sample_logprob
        gap = np.full_like(gap, gap.sum()) if loss["correction_level"] == "sequence" else gap
        gain = gain * np.minimum(np.exp(gap), loss["correction_cap"])
        seen["capped"] = (np.exp(gap) > loss["correction_cap"]).sum()
    if loss["off_policy_limit"] is not None and A < 0:
        drift = (row.sample_logprob - logprob.value).mean()
        gain = gain * float(drift <= loss["off_policy_limit"])
        seen["off policy"] = int(drift > loss["off_policy_limit"])
    lost = -gain
    if loss["kl_in"] == "loss" and loss["kl_coef"]:
        lost = lost + kl(loss["kl"], logprob, learnt.ref_logprob) * loss["kl_coef"]
    lost = lost - entropy * loss["entropy_coef"]
    return tape.total(lost * weight), seen


def token_weights(batch: list[Learnt], stage) -> list[np.ndarray]:
    """weight_t of each row's tokens, over all rows of an update."""
    masked = stage["loss"]["mask_truncated"]
    counts = [
        len(one.row.completion) if one.used and not (masked and one.row.truncated) else 0
        for one in batch
    ]
    rows = sum(count > 0 for count in counts)
    divisors = {
        "token": lambda count: sum(counts),
        "sequence": lambda count: rows * count,
        "constant": lambda count: rows * stage["max_new_tokens"],
        "sum": lambda count: rows,
    }
    divisor = divisors[stage["loss"]["aggregation"]]
    return [
        np.full(len(one.row.completion), 1 / divisor(count) if count else 0.0)
        for one, count in zip(batch, counts, strict=True)
    ]


class AdamW:
    """AdamW behind a global-norm clip, with warm-up and a schedule over `updates` updates."""

    def __init__(self, options, updates: int):
        self.options, self.updates, self.count = options, options["schedule_updates"] or updates, 0
        self.m: Arrays = {}
        self.v: Arrays = {}

    def rate(self, n: int) -> float:
        peak, final = self.options["learning_rate"], self.options["final"] or 0.0
        steps = round(self.options["warmup"] * self.updates)
        if n < steps:
            return peak * (n + 1) / steps
        if self.options["schedule"] == "constant":
            return peak
        part = min((n - steps) / max(self.updates - steps, 1), 1.0)
        return peak * (final + (1 - final) * (1 + math.cos(math.pi * part)) / 2)

    def step(self, arrays: Arrays, grads: Arrays) -> Arrays:
        o, rate = self.options, self.rate(self.count)
        self.count += 1
        length = math.sqrt(sum((g**2).sum() for g in grads.values()))
        is_long = o["clip_norm"] is not None and length > o["clip_norm"]
        shrink = o["clip_norm"] / length if is_long else 1.0
        new = {}
        for name, x in arrays.items():
            g = grads[name] * shrink
            m = self.m[name] = o["b1"] * self.m.get(name, 0.0) + (1 - o["b1"]) * g
            v = self.v[name] = o["b2"] * self.v.get(name, 0.0) + (1 - o["b2"]) * g**2
            m, v = m / (1 - o["b1"] ** self.count), v / (1 - o["b2"] ** self.count)
            decay = o["weight_decay"] if re.fullmatch(o["decayed"], name) else 0.0
            new[name] = x - rate * (m / (np.sqrt(v) + o["eps"]) + decay * x)
        return new


def on_tape(weights: Weights) -> tuple[Weights, Arrays]:
    """The weights with what is trained as nodes, and these."""
    leaves = {name: tape.Node(x) for name, x in weights.trained.items()}
    return weights.trained_as(leaves), leaves


def iteration(
    size, stage, seed: int, number: int, rounds, weights: Weights, reference: Weights | None,
    teacher: Weights | None, adam: AdamW,
) -> tuple[Weights, list[Counter]]:  # fmt: skip
    """The policy after iteration `number`, and what each update met.

    `rounds` holds P groups of G rows for each round of sampling, all by `weights`.
    """
    loss, temperature = stage["loss"], stage["sampling"]["temperature"]
    updates = stage["epochs"] * stage["minibatches"]
    groups, spread = [], []
    for rows_PG in rounds:
        old = [[logprobs(size, weights, row, temperature) for row in rows] for rows in rows_PG]
        ref = None
        if loss["kl_coef"] and reference is not None:
            ref = [[logprobs(size, reference, row, temperature) for row in g] for g in rows_PG]
        told = None
        if teacher is not None:
            told = [[logprobs(size, teacher, row, temperature) for row in g] for g in rows_PG]
        penalty_PG = np.zeros((len(rows_PG), len(rows_PG[0])))
        if loss["kl_in"] == "reward" and ref is not None:
            for p, g in np.ndindex(penalty_PG.shape):
                token_kl = kl(loss["kl"], tape.Node(old[p][g]), ref[p][g]).value
                penalty_PG[p, g] = loss["kl_coef"] * token_kl.sum()
        advantage_PG, teaches_P = compare(rows_PG, penalty_PG, stage)
        spread.extend(teaches_P)
        groups += [
            [
                Learnt(
                    row=row,
                    used=True,
                    advantage=advantage_PG[p, g],
                    old_logprob=old[p][g] if updates > 1 else None,
                    ref_logprob=ref[p][g] if ref else None,
                    teacher_logprob=told[p][g] if told else None,
                )
                for g, row in enumerate(rows)
            ]
            for p, rows in enumerate(rows_PG)
        ]
    if stage["dynamic_sampling"] != "off":  # those that teach come first, then empty ones
        order = sorted(range(len(groups)), key=lambda p: not spread[p])[: stage["prompts"]]
        groups = [[one._replace(used=bool(spread[p])) for one in groups[p]] for p in order]

    met = []
    for epoch in range(stage["epochs"]):
        order = np.arange(len(groups))
        if stage["minibatches"] > 1:
            random = np.random.RandomState([seed, number * stage["epochs"] + epoch])
            order = random.permutation(len(groups))
        for chosen in np.split(order, stage["minibatches"]):
            batch = [one for p in chosen for one in groups[p]]
            nodes, leaves = on_tape(weights)
            lost, seen = tape.Node(0.0), Counter()
            for one, weight in zip(batch, token_weights(batch, stage), strict=True):
                if weight.any():
                    of_row, seen_in_row = row_loss(size, nodes, one, weight, stage)
                    lost, seen = lost + of_row, seen + seen_in_row
                else:
                    seen["truncated" if one.used else "left out"] += 1
            grads = tape.gradients(lost, leaves)
            weights = weights.trained_as(adam.step(weights.trained, grads))
            met.append(seen)
    return weights, met


def supervised(size, pairs, weights: Weights, adam: AdamW) -> Weights:
    """The policy after an update of SFT: -(1/n) Σ log π(target_t) over the n target tokens."""
    nodes, leaves = on_tape(weights)
    lost = tape.Node(0.0)
    for prompt, target in pairs:
        lost = lost - tape.total(token_scores(size, nodes, prompt, target, 1.0)[0])
    grads = tape.gradients(lost / sum(len(target) for _, target in pairs), leaves)
    return weights.trained_as(adam.step(weights.trained, grads))
