"""An entry for every reward: its documented range, options it may have, an example of its own."""

from grpo.rewards.table import fitted, reward_table

RANGES = {
    "correct_answer": (0, 1),
    "strict_format": (0, 1),
    "tag_format": (0, 1),
    "demo_exact_format": (0, 3),
    "demo_approximate_format": (-2, 2),
    "demo_approximate_format_5": (-2.5, 2.5),
    "demo_answer": (-1, 3),
    "demo_numbers": (0, 1.5),
    "demo_cli_exact_format": (0, 3),
    "demo_cli_answer": (-1, 3),
    "demo_cli_numbers": (0, 1.5),
    "trajectory": (0, 2.1),
    "trajectory_steps": (0, 1),
    "hybrid": (0, 2.6),
    "plan": (0, 1),
    "hybrid_steps": (0, 1),
    "checkpoints_substring": (0, 0.4),  # the example below has two
    "checkpoints_equations": (0, 1),
    "tfidf": (0, 1),
    "scaffold": (0, 1),
    "label_match": (0, 1),
    "unit_answer": (0, 1),
    "citations": (0, 1),
    "citations_published": (0, 1),
    "repetition": (0, 1),
    "length": (0, 1),
    "svamp_answer": (-1, 3),
    "svamp_number": (0, 2),
    "svamp_connectives": (0, 1),
    "svamp_length": (0, 1),
    "svamp_algebra": (0, 1.2),
    "gemma3_reasoning": (0, 1),
    "relay": (-15, 30),
    "relay_notebook": (-13, 30),
}
GOLDS = ("72", "1,080", "-5", "0", "3/4", "0.5", "50%")
STEPS = {"least": 1, "about_question": False, "strict": True}
OPTIONS = {
    "correct_answer": {"strict": True},
    "plan": {"prefix": 0.2},
    "trajectory_steps": {"process": 0.6, **STEPS},
    "hybrid_steps": {"steps": "equations", **STEPS},
    "checkpoints_equations": {
        "match": "equation", "wrong": 0.1, "cap": 0.5, "without": None, "strict": True,
    },
    "tfidf": {
        "kind": "word", "n": 1, "stop_words": True, "sublinear": True,
        "target": "prompt_and_reference", "copied": 8, "words": 40, "penalty": 0.5,
    },
    "scaffold": {"headings": ("Identify", "Decide", "Explain")},
    "label_match": {"labels": GOLDS, "strict": False},
    "unit_answer": {"tolerance": 0.01, "bare": False, "strict": False},
    "repetition": {"kind": "word", "n": 3},
    "length": {"least": 5, "most": 50},
}  # fmt: skip
MOVE = {"step": "so", "needs": ["here"], "adds": ["there"], "deletes": ["here"]}
EXAMPLE = {
    "question": "Natalia sold 48 clips in April and half as many in May. How many are that?",
    "reasoning": "Natalia sold 48/2 = 24 clips in May, 48+24 = 72 in both months.",
    "answer": "72",
    "checkpoints": ["48/2=24", "48+24=72"],
    "context": "See 42 U.S.C. § 1983 and Brown v. Board, 347 U.S. 483.",
    "domain": "math",
    "strips": {"facts": ["here"], "goal": ["there"], "actions": [MOVE]},
}
LINES = {
    name: {"name": name, "weight": 1, "low": low, "high": high, "options": OPTIONS.get(name, {})}
    for name, (low, high) in RANGES.items()
}
TABLE = fitted(reward_table(LINES.values()), [EXAMPLE])
