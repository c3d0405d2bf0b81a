"""The rollout viewer: the completions of a group side by side, for any iteration that the page has.

The page has the data and an empty frame; the script fills it, by text nodes alone. Its address says
what is open: #rollouts=<stage>:<iteration>:<group>.
"""

import pathlib

from grpo.reporting.html.markup import island, paragraph, section
from grpo.reporting.html.rollouts import BUDGET, LONGEST, rollouts

FRAME = """<div class="viewer" tabindex="0" role="group" aria-label="Rollout viewer: left and right
for iterations, up and down for groups">
<div class="tools">
<label class="stages">stage <select data-do="stage"></select></label>
<span class="pair"><button type="button" data-do="back" aria-label="earlier iteration">←</button>
<label><span data-at="iteration"></span><input type="range" data-do="iteration" min="0" step="1"
aria-label="iteration"></label>
<button type="button" data-do="on" aria-label="later iteration">→</button></span>
<label>order <select data-do="order"><option value="">as sampled</option>
<option value="total">by reward</option><option value="advantage">by advantage</option>
<option value="tokens">by length</option></select></label>
<label>colour <select data-do="colour"></select></label>
</div>
<div class="groups" role="toolbar" aria-label="groups of the iteration"></div>
<div class="group" aria-live="polite"></div>
</div>
<noscript><p class="remark">The completions are shown by a script, which is off.</p></noscript>"""


def viewer(path: pathlib.Path, budget: int = BUDGET) -> str:
    """The section of a journal of completions; nothing where there is none."""
    found = rollouts(path, budget)
    if not found:
        return ""
    shown, groups = found["iterations"], [len(part["groups"]) for part in found["iterations"]]
    said = []
    if len(shown) < found["all"]:
        said.append(f"{len(shown)} of {found['all']} iterations, evenly spaced")
    if sum(groups) < sum(part["of"] for part in shown):
        said.append(f"the first {min(groups)} to {max(groups)} groups of each")
    said = [f"To stay small the page has {', '.join(said)}."] if said else []
    said.append(f"Texts are cut at {LONGEST:,} characters. rollouts.jsonl has everything.")
    return section("rollouts", "Rollouts", FRAME, paragraph(" ".join(said)),
                   island("rollouts", found))  # fmt: skip
