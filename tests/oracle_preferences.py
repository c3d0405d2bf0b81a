"""Losses of preferences once more: float64, one pair and one token at a time, from the papers.

Nothing of grpo is called here. A pair is (chosen, rejected) of log-probabilities, a list of floats
each, with the same of the reference.
"""

import math


def log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > -30 else x


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def relative(policy, reference):
    return sum(policy) - sum(reference)


def dpo(pair, reference, o, margin, moved):
    """Equation 7 of arXiv:2305.18290, with cDPO's labels and an offset (arXiv:2402.10571)."""
    ahead = relative(pair[0], reference[0]) - relative(pair[1], reference[1])
    h = o.beta * ahead - o.gamma - o.margin_coef * margin
    e = o.label_smoothing
    return -(1 - e) * log_sigmoid(h) - e * log_sigmoid(-h)


def ipo(pair, reference, o, margin, moved):
    """Equation 17 of arXiv:2310.12036."""
    h = relative(pair[0], reference[0]) - relative(pair[1], reference[1])
    return (h - 0.5 / o.beta) ** 2


def simpo(pair, reference, o, margin, moved):
    """Equation 6 of arXiv:2405.14734."""
    chosen, rejected = (o.beta / len(tokens) * sum(tokens) for tokens in pair)
    h = chosen - rejected - o.gamma - o.margin_coef * margin
    e = o.label_smoothing
    return -(1 - e) * log_sigmoid(h) - e * log_sigmoid(-h)


def orpo(pair, reference, o, margin, moved):
    """Equation 7 of arXiv:2403.07691."""
    odds = []
    for tokens in pair:
        p = math.exp(sum(tokens) / len(tokens))
        odds.append(p / (1 - p))
    h = o.beta * math.log(odds[0] / odds[1]) - o.gamma - o.margin_coef * margin
    e = o.label_smoothing
    return -(1 - e) * log_sigmoid(h) - e * log_sigmoid(-h)


def kto(pair, reference, o, margin, moved):
    """Equation 8 of arXiv:2402.01306 for the two completions, without its constants λ_y."""
    gain = o.desirable * sigmoid(o.beta * (relative(pair[0], reference[0]) - moved))
    loss = o.undesirable * sigmoid(o.beta * (moved - relative(pair[1], reference[1])))
    return (o.desirable - gain + o.undesirable - loss) / 2


LOSSES = {"dpo": dpo, "ipo": ipo, "simpo": simpo, "orpo": orpo, "kto": kto}


def loss(name, pairs, references, o, margins, moved):
    """The mean over pairs, and the supervised term per chosen token of them all."""
    rows = zip(pairs, references, margins, strict=True)
    costs = [LOSSES[name](pair, reference, o, margin, moved) for pair, reference, margin in rows]
    chosen = [x for pair in pairs for x in pair[0]]
    return o.coef * sum(costs) / len(costs) - o.sft_coef * sum(chosen) / len(chosen)
