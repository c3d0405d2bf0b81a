"""What a config may say: every field has a rule, and what is wrong is said in one line."""

import ast
import importlib
import pathlib
import re

import jax
import pytest

from configs import base
from grpo.algorithms.presets import GRPO, objective_of
from grpo.checks import problems as checks
from grpo.checks.problems import leaves
from grpo.checks.rules import COMMON, DATASET, REWARD
from grpo.pipeline import STAGES
from models.policy import APPLIED
from tests.refusals import changed

ROOT = pathlib.Path(__file__).parent.parent
S, G, E = "stages.sft.", "stages.grpo.", "stages.evaluate."
REWARDS = f"{G}rewards"
MORE = {"more": base.dataset(source="rows", train="more.csv", max_prompt=38).to_dict()}
PAIRS = {
    "pairs": base.dataset(
        source="preferences", train="pairs.jsonl", max_prompt=38,
        columns={"question": "prompt", "chosen": "chosen", "rejected": "rejected"},
    ).to_dict()
}  # fmt: skip
STRICT = f"{REWARDS}.correct_answer.options.strict"


def problems(config) -> list[str]:
    return checks.problems(config, STAGES)


pytestmark = pytest.mark.usefixtures("nothing_is_computed")


def test_the_tiny_experiment_is_fine():
    assert problems(changed({})) == problems(changed({}, "controls")) == []


BAD_FIELDS = [  # field, value, what is said after the field
    ("sed", 3, ": unknown field; did you mean seed?"),
    ("model.sise", "x", ": unknown field; did you mean model.size?"),
    (f"{S}stepz", 3, ": unknown field; did you mean steps?"),
    (f"{S}group", 8, ": unknown field"),
    (f"{G}loss.kl_coeff", 0.1, ": unknown field; did you mean loss.kl_coef?"),
    (f"{G}optimizer.lr", 0.1, ": unknown field"),
    (f"{REWARDS}.correct_answer.wieght", 1.0, ": unknown field; did you mean weight?"),
    ("seed", ..., ": is missing; configs/base.py has its default"),
    ("stages", ..., ": is missing; configs/base.py has its default"),
    (f"{G}loss.kl", ..., ": is missing; configs/base.py has its default"),
    (f"{REWARDS}.correct_answer.low", ..., ": is missing; configs/base.py has its default"),
    ("seed", "3", "='3': expected an integer, at least 0, at most 2147483647"),
    ("seed", True, "=True: expected an integer, at least 0"),
    ("mesh.fsdp", 1.0, "=1.0: expected an integer, at least 1"),
    ("data.strip_commas", 1, "=1: expected True or False"),
    ("model.path", 3, "=3: expected a text"),
    ("pipeline", "sft", "='sft': expected a tuple, such as (x,)"),
    ("pipeline", (), "=(): expected a tuple that is not empty, such as (x,)"),
    ("stages", 3, "=3: expected named fields, as in configs/base.py"),
    (REWARDS, None, "=None: expected named fields, as in configs/base.py"),
    (f"{G}loss.decoupled", "no", "='no': expected True or False"),
    (f"{G}loss.clip_low", "0.2", "='0.2': expected a number"),
    (f"{G}loss.kl_coef", "0.1", "='0.1': expected a number"),
    (f"{G}loss.preset", "dpo", "='dpo': expected one of grpo, dr_grpo, dapo, "),
    (f"{G}loss.preset", "dpo", "; did you mean dppo?"),
    (f"{G}loss.preset", None, "=None: expected one of grpo, dr_grpo, dapo, "),
    (f"{REWARDS}.correct_answer.weight", "1", "='1': expected a number"),
    (f"{REWARDS}.correct_answer.options", ..., ": is missing; configs/base.py has its default"),
    (f"{REWARDS}.correct_answer.options", 3, "=3: expected named fields, as in configs/base.py"),
    (f"{STRICT}", ..., ": is missing; correct_answer needs it"),
    (f"{STRICT}", "yes", "='yes': expected True or False"),
    (f"{STRICT}", 1, "=1: expected True or False"),
    (f"{STRICT}ly", True, ": unknown option; did you mean strict?"),
    (f"{REWARDS}.correct_answer.options.x", 1, ": unknown option; correct_answer takes strict"),
    (f"{REWARDS}.correct_answer.domains", "math", "='math': expected a tuple, such as (x,)"),
    (f"{REWARDS}.correct_answer.domains", (3,), "=(3,): expected a text"),
    (f"{S}steps", -1, "=-1: expected an integer, at least 1"),
    (f"{S}steps", 0, "=0: expected an integer, at least 1"),
    (f"{S}optimizer.learning_rate", float("nan"), "=nan: expected a number, more than 0, at most"),
    (f"{S}optimizer.learning_rate", float("inf"), "=inf: expected a number, more than 0, at most"),
    (f"{S}optimizer.learning_rate", 0.0, "=0.0: expected a number, more than 0, at most 1"),
    (f"{S}optimizer.eps", 10**400, "=1000"),
    (f"{S}optimizer.decayed", "(", "='(': is no regular expression (missing )"),
    (f"{G}lora.targets", None, "=None: is no regular expression"),
    (f"{G}group", 1, "=1: expected an integer, at least 2"),
    ("data.template", "plane", "='plane': expected one of plain, reasoning_tags, s1_kaggle, s1_"),
    ("data.template", "plane", "; did you mean plain?"),
    ("data.levels", (2, 6), "=(2, 6): expected one of 1, 2, 3, 4, 5"),
    ("model.size", "gemma3_1", "='gemma3_1': expected one of "),
    (
        f"{S}kind",
        "stf",
        "grpo, evaluate, grade; did you mean sft?",
    ),
    ("stages.a/b", base.sft().to_dict(), ": expected another name, of letters, digits, _ and -"),
    ("stages.base", base.sft().to_dict(), ": expected another name"),
    ("datasets", 3, "=3: expected named fields, as in configs/base.py"),
    ("datasets.data", base.dataset().to_dict(), ": expected another name, of letters, digits"),
    ("datasets.more", base.dataset(max_promt=3).to_dict(), ".max_promt: unknown field; did you m"),
    ("datasets.more", base.dataset(source="row").to_dict(), ".source='row': expected one of arit"),
    ("data.shots", -1, "=-1: expected an integer, at least 0"),
    ("data.validation_examples", -1, "=-1: expected an integer, at least 0"),
    ("evaluation.split", "valid", "='valid': expected one of train, validation, test; did you me"),
    ("stages.more", 3, ".kind=None: expected one of sft, traces, pairs, preference, reward_model"),
]

NO_VALIDATION = {"data.validation_examples": 0, "evaluation.split": "test"}
REFILL = {f"{G}dynamic_sampling": "refill", f"{G}max_rounds": 3}
BAD_TOGETHER = [  # changes, and how the line about them begins
    (
        {"pipeline": ("sft", "gprpo")},
        "pipeline: 'gprpo' is none of stages (evaluate, grpo, sft); d",
    ),
    ({"pipeline": ("sft", "sft")}, "pipeline: 'sft' is there twice"),
    ({f"{S}start": "grpo"}, f"{S}start='grpo': expected base or a training stage before it"),
    ({f"{G}start": "stf"}, f"{G}start='stf': expected base or a training stage before it"),
    (
        {"pipeline": ("sft", "evaluate", "grpo")},
        f"{E}policies: 'grpo' is neither base nor a training stage before it",
    ),
    ({f"{E}policies": ("evaluate",)}, f"{E}policies: 'evaluate' is neither base nor"),
    (
        {f"{REWARDS}.corect_answer": base.reward(1.0, 0.0, 1.0).to_dict()},
        f"{REWARDS}.corect_answer: unknown reward; did you mean correct_answer?",
    ),
    (
        {f"{REWARDS}.correct_answer.gate": "strict_format"},
        f"{REWARDS}: the gate of correct_answer is 'strict_format', which is no other entry",
    ),
    ({f"{REWARDS}.correct_answer.weight": 0.0}, f"{REWARDS}: no entry has a weight: one needs"),
    (
        {
            f"{REWARDS}.strict_format": base.reward(0.0, 0.0, 1.0, domains=("law",)).to_dict(),
            f"{REWARDS}.correct_answer.gate": "strict_format",
        },
        f"{REWARDS}: strict_format is for the domains law alone, and so no gate of correct_answer",
    ),
    ({REWARDS: {}}, f"{REWARDS}: no entry has a weight"),
    (
        {f"{REWARDS}.correct_answer.high": -1.0},
        f"{REWARDS}: correct_answer has weight 1.0 and range [0.0, -1.0]: expected finite numbers, "
        "low below high",
    ),
    ({f"{G}loss.kl": "k4"}, f"{G}loss.kl='k4': expected one of k1, k2, k3"),
    (
        {f"{G}loss.scale": "none", f"{G}loss.eps": 1e-6},
        f"{G}loss.eps=1e-06 would do nothing under scale='none': set it to None",
    ),
    (
        {f"{G}loss.preset": "dppo", f"{G}loss.dual_clip": 3.0},
        f"{G}loss.dual_clip=3.0 would do nothing under surrogate='dppo_tv': set it to None",
    ),
    (
        {f"{G}loss.surrogate": "dppo_tv"},
        f"{G}loss.divergence_limit=None: a number is needed under surrogate='dppo_tv'",
    ),
    (
        {f"{G}loss.preset": "maxrl", f"{REWARDS}.correct_answer.low": -1.0},
        f"{REWARDS}.correct_answer: weight=1.0, low=-1.0: loss.scale='mean' divides by the mean",
    ),
    (
        {f"{G}loss.preset": "maxrl", f"{REWARDS}.correct_answer.weight": -1.0},
        f"{REWARDS}.correct_answer: weight=-1.0, low=0.0: loss.scale='mean' divides by the mean",
    ),
    (
        {f"{G}loss.preset": "reinforce_pp_baseline", **REFILL},
        f"{G}dynamic_sampling='refill': each round would have a baseline or scale of its own",
    ),
    ({f"{G}loss.baseline": "batch"}, f"{G}loss.baseline='batch' with scale='group' divides"),
    ({f"{G}loss.kl_coef": -0.1}, f"{G}loss.kl_coef=-0.1: expected a number from 0 on"),
    (
        {f"{G}loss.entropy_coef": 0.1, f"{G}entropy": False},
        f"{G}entropy=False: loss.entropy_coef needs it: set it to True",
    ),
    ({f"{G}sampling.temperature": 0.0}, f"{G}sampling.temperature=0: the completions of a group"),
    ({f"{G}minibatches": 3}, f"{G}minibatches=3: does not divide prompts=16"),
    ({f"{G}microbatches": 256}, f"{G}microbatches=256: there are only 128 rows (prompts * group"),
    ({f"{S}microbatches": 65}, f"{S}microbatches=65: there are only 64 rows (batch)"),
    ({"mesh.fsdp": 2, f"{S}batch": 60}, f"{S}microbatches=4: 60 rows (batch) do not divide by it"),
    (
        {"mesh.fsdp": 8, f"{G}prompts": 2},
        f"{G}microbatches=8: 16 rows (prompts * group / minibatches) do not divide by it times "
        "mesh.fsdp=8",
    ),
    ({"mesh.fsdp": 16}, "mesh: fsdp * tp = 16 devices, here are 8"),
    ({"mesh.tp": 3}, "mesh.tp=3: does not divide the"),
    ({f"{G}max_rounds": 3}, f"{G}max_rounds=3: dynamic_sampling='off' needs 1"),
    ({f"{G}dynamic_sampling": "refill"}, f"{G}max_rounds=1: dynamic_sampling='refill' needs more"),
    ({f"{S}optimizer.final": None}, f"{S}optimizer.final=None: schedule='cosine' needs a share"),
    ({f"{G}optimizer.final": 0.1}, f"{G}optimizer.final=0.1: schedule='constant' needs None"),
    (
        {f"{G}lora.rank": 4, f"{G}lora.targets": "query"},
        f"{G}lora.targets='query': matches none of q, k, v, o, gate, up, down",
    ),
    ({f"{S}packing": 68}, f"{S}packing=68: an example may have 69 tokens (max_prompt of its"),
    ({f"{E}ks": (1, 16)}, f"{E}ks=(1, 16): the largest is more than samples=8"),
    ({f"{E}samples": 0, f"{E}greedy": False}, f"{E}samples=0: with greedy=False there is nothing"),
    ({"data.buckets": (20, 60)}, "data.buckets=(20, 60): the largest must be max_prompt=38"),
    ({"data.train": "a.jsonl"}, "data.train='a.jsonl': source='arithmetic' reads no file: "),
    (
        {"data.source": "gsm8k", "data.test": "a.jsonl"},
        "data.train=None: source='gsm8k' needs a file: name one",
    ),
    (
        {"data.source": "gsm8k", "data.train": "a.txt", "data.test": "a.csv"},
        "data.train='a.txt': expected a file that ends in .jsonl, .csv, .parquet",
    ),
    (
        {"data.columns": {"question": "q"}, "data.source": "rows"}
        | {"data.train": "a.csv", "data.test": "b.csv"},
        "data.columns: which one is the answer?",
    ),
    ({"data.columns.answer": 3}, "data.columns.answer=3: expected a text, the name of a column"),
    (
        {"data.validation": "a.csv", **NO_VALIDATION},
        "data.validation='a.csv': source='arithmetic' reads no file",
    ),
    (
        {"data.source": "rows", "data.train": "a.csv", "data.validation": "b.csv"}
        | {"data.test": "c.csv", "data.validation_examples": 9},
        "data.validation_examples=9: of a file of their own all are taken: set it to 0",
    ),
    ({f"{G}data": "more"}, f"{G}data='more': is none of datasets"),
    ({"datasets": MORE, f"{G}data": "mroe"}, f"{G}data='mroe': is none of datasets; did you mean"),
    ({"datasets": MORE, f"{E}data": "more"}, f"{E}split='test': more has no test examples"),
    ({"evaluation.data": "more"}, f"{G}evaluation.data='more': is none of datasets"),
    (
        {**NO_VALIDATION, "evaluation.split": "validation"},
        f"{G}evaluation.split='validation': data has no validation examples",
    ),
    (
        {**NO_VALIDATION, f"{E}split": "validation"},
        f"{E}split='validation': data has no validation examples",
    ),
    (
        {"datasets": PAIRS, f"{S}data": "pairs"},
        f"{S}data='pairs': its rows are preferences, this stage reads examples",
    ),
    (
        {"datasets": {"more": MORE["more"] | {"train": None}}},
        "datasets.more.train=None: source='rows' needs a file: name one",
    ),
    (
        {"datasets": {"more": MORE["more"] | {"columns": {"answer": "b"}}}},
        "datasets.more.columns: which one is the question?",
    ),
    (
        {"datasets": {"more": MORE["more"] | {"max_prompt": 99}}},
        "data.buckets=(38,): the largest must be max_prompt=99",
    ),
    ({"data.shots": 6001}, "data.shots=6001: only train_examples=6000 are made"),
    (
        {"datasets": {"more": MORE["more"] | {"shots": 2}}},
        "datasets.more.shots=2: columns.reasoning is missing: name the column of worked solutions",
    ),
    (
        {"datasets": {"pairs": PAIRS["pairs"] | {"shots": 2}}},
        "datasets.pairs.shots=2: preferences have no worked solutions to show: set it to 0",
    ),
    ({"datasets": MORE, f"{S}data": "more", f"{S}packing": 68}, f"{S}packing=68: an example may"),
]


@pytest.mark.parametrize(("field", "value", "said"), BAD_FIELDS, ids=lambda x: str(x)[:40])
def test_a_bad_field(field, value, said):
    found = problems(changed({field: value}))
    about = [line for line in found if line.startswith(field)]
    assert len(about) == 1 and said in about[0] and all("\n" not in line for line in found)
    assert len(found) == 1 or field.startswith("stages.") or field == "sed"


@pytest.mark.parametrize(("changes", "said"), BAD_TOGETHER, ids=str)
def test_fields_that_do_not_go_together(changes, said):
    (line,) = problems(changed(changes))
    assert line.startswith(said) and "\n" not in line


def test_everything_at_once():
    """Single fields and what others say together, in every section; each mistake is one line."""
    found = problems(
        changed(
            {
                "data.buckets": (50,),
                f"{S}packing": 10,
                f"{S}optimizer.final": None,
                f"{G}iteration": 3,
                f"{G}group": 1,
                f"{E}ks": (99,),
            }
        )
    )
    named = {re.split("[:=]", line)[0] for line in found}
    assert len(found) == 6 and named == {
        "data.buckets", f"{S}packing", f"{S}optimizer.final", f"{G}iteration", f"{G}group",
        f"{E}ks",
    }  # fmt: skip
    options = {STRICT: ..., f"{STRICT}ly": True, f"{REWARDS}.correct_answer.options.x": 1}
    assert len(problems(changed(options))) == 3
    two_gates = {
        name: base.reward(1.0, 0.0, 1.0, gate).to_dict()
        for name, gate in (("hybrid", "x"), ("strict_format", "y"))
    }
    assert len(problems(changed({REWARDS: two_gates}))) == 2


def test_one_device_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: pytest.fail("the backend was started"))
    assert problems(changed({})) == []


CHECKPOINTS = {"match": "value", "wrong": 0.1, "cap": 0.5, "without": None, "strict": True}


@pytest.mark.parametrize(
    ("reward", "options", "wrong"),
    [
        ("checkpoints_equations", CHECKPOINTS, None),
        ("checkpoints_equations", CHECKPOINTS | {"without": 0.5}, None),
        (
            "checkpoints_equations",
            CHECKPOINTS | {"match": "valeu"},
            "match='valeu': expected one of equation, value; did you mean value?",
        ),
        (
            "checkpoints_equations",
            CHECKPOINTS | {"cap": 1.5},
            "cap=1.5: expected a number, at least 0, at most 1",
        ),
        (
            "checkpoints_equations",
            CHECKPOINTS | {"without": 2},
            "without=2: expected a number, at least 0, at most 1",
        ),
        ("repetition", {"kind": "char", "n": 0}, "n=0: expected an integer, at least 1"),
        ("scaffold", {"headings": ("Plan",)}, None),
        (
            "scaffold",
            {"headings": ()},
            "headings=(): expected a tuple that is not empty, such as (x,)",
        ),
        ("scaffold", {"headings": "Plan"}, "headings='Plan': expected a tuple, such as (x,)"),
        ("scaffold", {"headings": ("Plan", 3)}, "headings=('Plan', 3): expected a text"),
    ],
)
def test_options_by_their_annotations(reward, options, wrong):
    entry = base.reward(1.0, 0.0, 1.0, **options).to_dict()
    found = problems(changed({f"{REWARDS}.{reward}": entry}))
    assert found == ([] if wrong is None else [f"{REWARDS}.{reward}.options.{wrong}"])


def defaults() -> dict[str, dict[str, object]]:
    """The fields of configs/base.py with their defaults: of a run, and of each kind of stage."""
    sections = {
        "": base.base(),
        "sft": base.sft(),
        "grpo": base.grpo(),
        "evaluate": base.evaluate(),
        "grade": base.grade(),
    }
    return {name: dict(leaves(section.to_dict())) for name, section in sections.items()}


def test_every_field_has_a_rule_and_every_rule_a_field():
    for name, section in defaults().items():
        rules = COMMON if name == "" else STAGES[name].FIELDS
        own = ["kind"] if name else []
        assert sorted(section) == sorted([*rules, *own])
        for field, rule in rules.items():
            # A run's pipeline is the one field without a default that may stay.
            assert rule(section[field]) is None or field == "pipeline"
    assert sorted(base.reward(1.0, 0.0, 1.0)) == sorted(REWARD)
    assert sorted(base.dataset()) == sorted(DATASET)


def test_the_default_loss_is_that_of_the_mission():
    assert objective_of(base.grpo().loss.to_dict()) == GRPO


def test_a_loss_that_looks_like_trouble_and_is_none():
    """A penalty that is only logged is in no mean; groups can be refilled over their own mean."""
    logged = {f"{REWARDS}.demo_numbers": base.reward(0.0, -1.0, 1.0).to_dict()}
    assert problems(changed({f"{G}loss.preset": "maxrl", **logged, **REFILL})) == []


def test_every_field_is_read():
    """Its name stands in grpo/ as a key or a keyword, outside of the rules about it."""
    words = set()
    for file in (ROOT / "grpo").rglob("*.py"):
        if file.name in ("rules.py", "problems.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
            elif isinstance(node, ast.arg | ast.keyword) and node.arg:
                words.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                words.add(node.target.id)  # a field of a dataclass that is made from a section
    # Of these the section goes to models/ as a whole: LoraConfig(**lora), make_mesh(**mesh).
    whole = {"rank", "alpha", "targets", "rslora", "fsdp", "tp", *APPLIED}
    fields = {path.rpartition(".")[2] for section in defaults().values() for path in section}
    unread = fields - words - whole - {part + "_examples" for part in ("train", "test")}
    assert unread == set()


EXPERIMENTS = [
    path.stem for path in sorted((ROOT / "configs").glob("[!_]*.py")) if path.stem != "base"
]
# What an experiment may need that is not here.
ELSEWHERE = re.compile(r"mesh: fsdp \* tp = \d+ devices, here are")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_fine(name):
    module = importlib.import_module(f"configs.{name}")
    source = (ROOT / "configs" / f"{name}.py").read_text()
    assert ast.get_docstring(ast.parse(source))
    variants = re.search(r"variant not in (\(.*\))", source)
    for variant in ast.literal_eval(variants[1]) if variants else ("",):
        found = problems(module.get_config(variant).to_dict())
        assert [line for line in found if not ELSEWHERE.match(line)] == []
    with pytest.raises(ValueError, match="variant 'nope' of configs/"):
        module.get_config("nope")


@pytest.mark.parametrize("name", ["base", *EXPERIMENTS])
def test_experiments_import_configs_only(name):
    tree = ast.parse((ROOT / "configs" / f"{name}.py").read_text())
    modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert {module.split(".")[0] for module in modules} <= {
        "configs", "ml_collections", "math", "importlib", "collections", "typing",
    }  # fmt: skip
