"""Mistakes in the configs of systems that are known in part, and in their preflight."""

from tests.mistakes import Mistake

TEST = "tests/test_domain_configs.py::"
TOKENS, JUDGE = "configs/thinking_in_tokens_gemma3_1b.py", "configs/thought_teacher_gemma2_2b.py"
LEGAL, DISTILL = "configs/legal_gemma3_1b.py", "configs/distill_gemma3_1b.py"
SIZES_ONLY = TEST + "test_a_rehearsal_differs_in_size_only"

MISTAKES = [
    Mistake("fewer checkpoints than a row may have", TOKENS,
            "MOST = 9 ", "MOST = 8 ", TEST + "test_thinking_in_tokens"),
    Mistake("the working makes up for the answer", TOKENS,
            "_common.equations(0.5)", "_common.equations(4.0)", TEST + "test_thinking_in_tokens"),
    Mistake("coins that are no coins", JUDGE,
            "shuffle_labels = True", "shuffle_labels = False", TEST + "test_the_judge"),
    Mistake("the control has the judge that was trained", JUDGE,
            'options.model = "coins"', 'options.model = "reward_model"', TEST + "test_the_judge"),
    Mistake("a flow of wrong answers", JUDGE,
            '"flow": ("number", ', '"flow": ("wrong", "number", ', TEST + "test_it_is_fine"),
    Mistake("citations cost", LEGAL,
            "citations_published = base.reward(0.2", "citations_published = base.reward(-0.2",
            TEST + "test_legal"),
    Mistake("the teacher learns from the student", DISTILL,
            'start="student", teacher="teacher"', 'start="teacher", teacher="student"',
            TEST + "test_distillation"),
    Mistake("the control has other updates", DISTILL,
            "more_sft(steps=60", "more_sft(steps=90", TEST + "test_distillation"),
    Mistake("a rehearsal of another loss", "configs/_rehearsal.py",
            "grpo.lora.rank = None", "grpo.loss.kl_coef = 0.0", SIZES_ONLY),
    Mistake("a rehearsal without its control", "configs/_rehearsal.py",
            '("sft", "grpo", "more_sft", tokens', '("sft", "grpo", tokens', SIZES_ONLY),
    Mistake("any step is half a plan", "configs/robotics_gemma3_1b.py",
            "prefix=0.1", "prefix=0.5", TEST + "test_robotics"),
    Mistake("a bare number is a quantity", "configs/chemistry_gemma3_1b.py",
            "bare=False", "bare=True", TEST + "test_chemistry"),
    Mistake("maybe is no answer", "configs/medical_gemma3_1b.py",
            '"no", "maybe")', '"no")', TEST + "test_medical"),
    Mistake("a preflight takes a judge's head for its rows", "grpo/tools/preflight.py",
            "case[-1].shape", "case[1].shape",
            TEST + "test_a_preflight_sees_the_programs_of_the_judge"),
]  # fmt: skip
