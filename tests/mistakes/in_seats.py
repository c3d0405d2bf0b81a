"""Mistakes in rollouts whose rows take turns."""

from tests.mistakes import Mistake

SEATS, GENERATE = "grpo/rollout/seats.py", "grpo/rollout/generate.py"
ROWS = "tests/test_seats.py::test_rows_are_those_of_the_plain_loop"
SAYS = "tests/test_seats.py::test_a_policy_says_how_many"

MISTAKES = [
    Mistake("all prompts are put into the first seat", SEATS,
            "dynamic_update_slice(to_S, prompt, (place, *zero))",
            "dynamic_update_slice(to_S, prompt, (0, *zero))", ROWS),
    Mistake("a row begins from the next prompt", SEATS,
            "p, place = desk * prompts + row // group", "p, place = desk * prompts + (row + 1) // group",
            ROWS),
    Mistake("a prompt's last token is read twice", SEATS,
            "before(ids_PI[:, :-1]), before(mask_PI[:, :-1])", "ids_PI, mask_PI", ROWS),
    Mistake("all tokens of a row are drawn with one key", SEATS,
            "drawn_DS.reshape(-1)\n", "0 * drawn_DS.reshape(-1)\n", ROWS),
    Mistake("a row ends one token early", SEATS,
            "(drawn_DS + 1 == limit)", "(drawn_DS + 2 == limit)", ROWS),
    Mistake("who has ended stays", SEATS,
            "row_DS=jnp.where(leaves_DS, state.length_DN.shape[1], state.row_DS)",
            "row_DS=jnp.where(drawn_DS + 1 == limit, state.length_DN.shape[1], state.row_DS)", ROWS),
    Mistake("the empty seats stay", SEATS,
            "jnp.argsort(~state.taken_DS", "jnp.argsort(state.taken_DS", ROWS),
    Mistake("seats never halve", SEATS,
            "if few:\n            carry = close(*carry, few)", "if False:\n            carry = close(*carry, few)",
            "tests/test_seats.py::test_a_seat_costs_what_it_costs"),
    Mistake("a preflight forgets the prompts that wait", "grpo/tools/preflight.py",
            "cache += device_bytes(cache_of(policy, prompts, width))", "cache += 0",
            "tests/test_preflight.py::test_the_cache_is_that_of_the_seats"),
    Mistake("the policy's seats are not read", GENERATE,
            "seats = min(policy.seats or rows, rows)", "seats = rows", SAYS),
    Mistake("the policy's halvings are not read", GENERATE,
            '"halvings": policy.halvings}', '"halvings": 0}', SAYS),
]  # fmt: skip
