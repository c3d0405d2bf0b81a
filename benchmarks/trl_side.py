"""TRL's side of side_by_side.py: one case, in a process of its own, in TRL's own environment.

The model is transformers', its adapter peft's and unmerged, and what trains is TRL's GRPOTrainer:
a group's rows in one batch, each with a prompt of its own. Of TRL's defaults two are changed, in
its favour here: no gradient checkpointing, and in `bfloat16` weights of that dtype (by default
float32 ones are cast in every product). Its log-probabilities are those of its reference pass, but
with the adapter, as the other sides have it. `train` is a step without its sampling and scoring.
"""

import os
import sys
import tempfile
from collections.abc import Callable

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # read on import

import datasets
import peft
import tokenizers
import torch
import transformers
import trl
import work

PAD, EOS, BOS, UNKNOWN = range(4)
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = peft.LoraConfig(
    r=work.RANK, lora_alpha=int(work.ALPHA), target_modules=PROJECTIONS, task_type="CAUSAL_LM"
)


def save_model(folder: str, dtype: torch.dtype) -> None:
    """Random weights in the work's shape: TRL reads its reference from where a model came from."""
    config = transformers.Gemma3TextConfig(
        vocab_size=work.VOCAB,
        hidden_size=work.WIDTH,
        intermediate_size=work.FFN,
        num_hidden_layers=work.LAYERS,
        num_attention_heads=work.HEADS,
        num_key_value_heads=work.KV_HEADS,
        head_dim=work.HEAD_DIM,
        query_pre_attn_scalar=work.HEAD_DIM,
        sliding_window=work.WINDOW,
        max_position_embeddings=1024,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
    )
    torch.manual_seed(0)
    transformers.Gemma3ForCausalLM(config).to(dtype).save_pretrained(folder)


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """'t3 t17 t5' <-> [3, 17, 5]."""
    special = {"pad_token": PAD, "eos_token": EOS, "bos_token": BOS, "unk_token": UNKNOWN}
    words = {f"t{i}": i for i in range(work.VOCAB)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token=f"t{UNKNOWN}"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{name: f"t{i}" for name, i in special.items()}
    )


def rewards(completion_ids: list[list[int]], **_) -> list[float]:
    """The reward of each completion."""
    assert all(len(ids) == work.NEW for ids in completion_ids)
    return [work.reward(ids) for ids in completion_ids]


def make_trainer(folder: str, dtype: torch.dtype, mode: str, steps: int) -> trl.GRPOTrainer:
    """TRL's trainer of the work."""
    prompts = work.draw_ids(work.PROMPT)[:: work.GROUP]
    texts = [" ".join(f"t{i}" for i in ids) for ids in prompts]
    arguments = trl.GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        dataloader_pin_memory=False,
        max_steps=steps,
        per_device_train_batch_size=work.ROWS,
        num_generations=work.GROUP,
        max_completion_length=work.NEW,
        temperature=work.TEMPERATURE,
        generation_kwargs={"min_new_tokens": work.NEW},
        beta=work.BETA,
        epsilon=work.CLIP,
        learning_rate=work.PEAK_LR,
        adam_beta1=work.OPTIMIZER["b1"],
        adam_beta2=work.OPTIMIZER["b2"],
        weight_decay=work.OPTIMIZER["weight_decay"],
        max_grad_norm=work.CLIP_NORM,
        bf16=dtype == torch.bfloat16,
        gradient_checkpointing=False,
    )
    return trl.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
        args=arguments,
        reward_funcs=rewards,
        train_dataset=datasets.Dataset.from_dict({"prompt": texts}),
        processing_class=make_tokenizer(),
        peft_config=LORA if mode == "lora" else None,
    )


def rollout_case(trainer: trl.GRPOTrainer) -> Callable:
    """Completions of every row's prompt."""
    model, ids = trainer.model.eval(), torch.from_numpy(work.draw_ids(work.PROMPT)).long()

    @torch.no_grad()
    def run() -> None:
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            use_cache=True,
            do_sample=True,
            temperature=work.TEMPERATURE,
            top_k=0,
            top_p=1.0,
            min_new_tokens=work.NEW,
            max_new_tokens=work.NEW,
        )
        assert out.shape == (work.ROWS, work.LENGTH)

    return run


def logprobs_case(trainer: trl.GRPOTrainer) -> Callable:
    """Log-probabilities of the work's completions."""
    ids = torch.from_numpy(work.draw_ids(work.LENGTH)).long()
    score = trainer._get_per_token_logps_and_entropies

    @torch.no_grad()
    def run() -> None:
        found, *_ = score(trainer.model, ids, torch.ones_like(ids), work.NEW)
        assert found.shape == (work.ROWS, work.NEW)

    return run


class Clock(transformers.TrainerCallback):
    """What each step took, and what of it sampling and scoring took."""

    def __init__(self, trainer: trl.GRPOTrainer):
        self.steps: list[work.Span] = []
        self.sampled: list[work.Span] = []
        self._begun = work.now()
        self._sample = trainer._generate_and_score_completions
        trainer._generate_and_score_completions = self.sample
        trainer.add_callback(self)

    def on_step_begin(self, *_, **__) -> None:
        """The trainer says so."""
        self._begun = work.now()

    def on_step_end(self, *_, **__) -> None:
        """The trainer says so."""
        self.steps.append(work.since(self._begun))

    def sample(self, inputs):
        """The trainer's own method."""
        before = work.now()
        found = self._sample(inputs)
        self.sampled.append(work.since(before))
        return found

    def updates(self) -> list[work.Span]:
        """The rest of each step."""
        pairs = zip(self.steps, self.sampled, strict=True)
        return [(step[0] - sampled[0], step[1] - sampled[1]) for step, sampled in pairs]


def main(case: str, dtype: str, mode: str, repeats: str) -> None:
    """One case."""
    work.pin()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, getattr(torch, dtype))
        trainer = make_trainer(folder, getattr(torch, dtype), mode, int(repeats) + 1)
        if case in ("train", "step"):
            clock = Clock(trainer)
            trainer.train()
            spans = clock.steps if case == "step" else clock.updates()
            work.report("trl", case, dtype, mode, spans)
            return
        run = {"rollout": rollout_case, "logprobs": logprobs_case}[case](trainer)
        work.measure("trl", case, dtype, mode, int(repeats), run)


if __name__ == "__main__":
    main(*sys.argv[1:])
