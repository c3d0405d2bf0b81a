from configs import _rehearsal, base


def get_config(variant=""):
    config = base.base()
    _rehearsal.on_a_cpu(config, levels=(2,), worked=0.5, max_prompt=84, tokens=32)
    config.data.buckets = (38, 84)
    config.datasets.grading = base.dataset(
        source="grading",
        levels=(2,),
        train_examples=24000,
        validation_examples=200,
        test_examples=400,
        template="verdict",
        max_prompt=84,
    )
    s = config.stages
    s.sft = _rehearsal.warm_up(steps=340, tokens=32)
    s.judge = _rehearsal.warm_up(steps=500, tokens=3, start="sft")
    s.judge.data = "grading"
    s.judge.optimizer.learning_rate = 2e-3
    s.evaluate = _rehearsal.side_by_side("judge", tokens=3)
    s.evaluate.data = "grading"
    config.pipeline = ("sft", "judge", "evaluate")
    return config
