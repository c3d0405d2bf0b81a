"""Transformers' side of ragged.py: `generate` in static batches of 64 rows, one process.

Rows end where ours did: a criterion says so for each, and a batch goes on to its longest. That is
what `generate` does with stop tokens, less the lookup of them.
"""

import json
import sys
import tempfile

import torch
import transformers
import trl_side
import work

SEATS, GROUP, PROMPTS, NEW = 64, 4, 64, 512


class Ends(transformers.StoppingCriteria):
    """Each row ends after so many tokens of its own."""

    def __init__(self, lengths: list[int]):
        self._end_B = torch.tensor(lengths) + work.PROMPT

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_) -> torch.Tensor:
        return self._end_B <= input_ids.shape[1]


def main(dtype: str) -> None:
    """A rollout for each line that comes in."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    work.WINDOW = NEW
    with tempfile.TemporaryDirectory() as folder:
        trl_side.save_model(folder, getattr(torch, dtype))
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()
    torch.manual_seed(0)
    prompts = torch.randint(4, work.VOCAB, (PROMPTS, work.PROMPT)).repeat_interleave(GROUP, dim=0)

    @torch.no_grad()
    def run(lengths: list[int]) -> list[int]:
        found = []
        for first in range(0, len(prompts), SEATS):
            rows = slice(first, first + SEATS)
            out = model.generate(
                input_ids=prompts[rows],
                attention_mask=torch.ones_like(prompts[rows]),
                use_cache=True,
                do_sample=True,
                temperature=work.TEMPERATURE,
                top_k=0,
                top_p=1.0,
                eos_token_id=None,
                pad_token_id=trl_side.PAD,
                max_new_tokens=NEW,
                stopping_criteria=transformers.StoppingCriteriaList([Ends(lengths[rows])]),
            )
            assert out.shape[1] == work.PROMPT + max(lengths[rows])
            found += lengths[rows]
        return found

    for line in sys.stdin:
        lengths = json.loads(line)["lengths"]
        before = work.cpu_seconds()
        found = run(lengths)
        row = {"cpu_s": round(work.cpu_seconds() - before, 2), "checksum": None}
        print(json.dumps({**row, "lengths": found}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
