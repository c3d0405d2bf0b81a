"""Reports in a real headless Chromium: nothing of a text runs, nothing is too wide, keys do work.

Without a Chromium on this machine these are skipped (Debian: apt-get install chromium).
"""

import json

import pytest

from grpo.reporting.html.report import write_report
from grpo.storage.journal import Journal
from tests import browser
from tests.hostile_run import hostile_run, make_run

pytestmark = pytest.mark.skipif(
    not browser.found(), reason=f"no browser: none of {', '.join(browser.NAMES)} is on this machine"
)
WIDE, PHONE = 1280, 360
AT = "document.querySelector('[data-at=iteration]').textContent"
TITLE = "document.querySelector('.asked b').textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser.browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def written(run):
    said = []
    write_report(run, said.append)
    assert said == []
    return run / "report.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return written(hostile_run(tmp_path_factory.mktemp("runs") / "hostile", 10_000, 2))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run whose first iteration has log-probs of tokens."""
    run = make_run(tmp_path_factory.mktemp("runs") / "plain", 160, lambda text: text)
    rows = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    (run / "rollouts.jsonl").unlink()
    tokens = {
        "text": ["com", "<b>", ""],
        "sample_logprob": [-1.0, -2.0, -0.5],
        "ref_logprob": [-1.0, -1.0, -0.5],
        "entropy": [2.5, 0.0, 1.25],
        "predicted_change": [0.5, -0.25, 0.0],
        "realised_change": [0.25, -0.5, 0.0],
    }
    for row in rows:
        more = {"per_token": tokens} if row["stage"] == "s0" and row["iteration"] == 0 else {}
        Journal(run / "rollouts.jsonl").write({**row, **more})
    return written(run)


def is_fine(page, file, width):
    """No error, no dialog, no request but for the file, nothing wider than the window."""
    assert page.complaints == []
    assert [url.partition("#")[0] for url in page.requests] == [file.absolute().as_uri()]
    assert page.ask("document.documentElement.scrollWidth") <= width
    foreign = page.ask(
        "document.querySelectorAll('img, iframe, object, base, main script:not([type])').length"
    )
    assert foreign == 0 and page.ask("document.querySelectorAll('style').length") == 1


@pytest.mark.parametrize(("width", "dark"), [(WIDE, False), (WIDE, True), (PHONE, False)])
def test_hostile_texts_do_nothing(page, hostile, width, dark):
    page.look(width=width, dark=dark)
    page.open(hostile)
    page.ask("for (const part of document.querySelectorAll('details')) part.open = true;")
    is_fine(page, hostile, width)
    page.ask("document.querySelector('.viewer').focus()")
    seen = set()
    for key in ("ArrowLeft", "ArrowDown") * 6:
        page.press(key)
        seen.add(page.ask(f"{AT} + {TITLE}"))
    is_fine(page, hostile, width)
    assert len(seen) > 10
    assert page.ask("document.querySelectorAll('.viewer .card').length") == 8
    assert page.ask("[...document.querySelectorAll('.viewer pre')].every(p => !p.children.length)")


def test_the_policy_stops_what_is_no_script_of_ours(page, plain):
    page.look(width=WIDE)
    page.open(plain)
    page.ask("document.body.append(Object.assign(document.createElement('script'),"
             "{textContent: 'window.bad = 1'}))")  # fmt: skip
    page.ask("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.bad = 2\">x</p>')")
    page.ask("document.body.lastElementChild.click()")
    assert page.ask("window.bad === undefined")
    assert len(page.complaints) >= 2 and all("Content Security" in x for x in page.complaints)
    page.complaints.clear()


def test_an_address_opens_a_group_and_keys_go_on(page, plain):
    page.look(width=WIDE)
    page.open(plain, "#rollouts=s1:4:1")
    assert page.ask(AT) == "iteration 4" and page.ask("scrollY") > 500
    page.ask("document.querySelector('.viewer').focus()")
    page.press("ArrowRight")
    assert page.ask(AT) == "iteration 5"
    for _ in range(6):
        page.press("ArrowLeft")
    assert page.ask(AT) == "iteration 9"  # of the stage before
    assert page.ask("document.querySelector('[data-do=stage]').value") == "s0"
    assert page.ask("location.hash") == "#rollouts=s0:9:1"
    page.ask("document.querySelector('[data-do=order]').value = 'total'")
    page.ask("document.querySelector('[data-do=order]').dispatchEvent(new Event('change'))")
    totals = page.ask(
        "[...document.querySelectorAll('.viewer .card .head b')].map(b => b.textContent)"
    )
    assert totals == sorted(totals, reverse=True) and len(set(totals)) == 3
    assert page.complaints == []


def test_tokens_are_coloured_by_what_is_there(page, plain):
    page.look(width=WIDE)
    page.open(plain, "#rollouts=s0:0:1")
    names = page.ask("[...document.querySelector('[data-do=colour]').options].map(o => o.value)")
    assert names == ["none", "advantage", "KL to the reference (k3)",
                     "change not predicted", "sample_logprob", "ref_logprob", "entropy",
                     "predicted_change", "realised_change"]  # fmt: skip

    def coloured(name):
        page.ask(f"document.querySelector('[data-do=colour]').value = '{name}'")
        page.ask("document.querySelector('[data-do=colour]').dispatchEvent(new Event('change'))")
        return page.ask(
            "[...document.querySelector('.card').querySelectorAll('.token')]"
            ".map(t => [t.textContent, t.title, t.style.backgroundColor])"
        )

    tokens = coloured("KL to the reference (k3)")
    assert [text for text, *_ in tokens] == ["com", "<b>", "∎"]
    # k3 of d = -1 - -2 = 1: e - 1 - 1
    assert tokens[1][1].endswith(" 0.7183") and tokens[0][1].endswith(" 0")
    assert tokens[1][2] == "rgba(0, 114, 178, 0.6)" and tokens[0][2].endswith(", 0)")
    titles = [title for _, title, _ in coloured("change not predicted")]
    assert [title.split()[-1] for title in titles] == ["-0.2500", "-0.2500", "0"]
    tokens = coloured("entropy")
    assert [title for _, title, _ in tokens] == ["entropy 2.5000", "entropy 0", "entropy 1.2500"]
    blue, orange = "rgba(0, 114, 178, ", "rgba(213, 94, 0, "
    assert [colour for *_, colour in tokens] == [f"{blue}0.6)", f"{blue}0)", f"{blue}0.3)"]
    tokens = coloured("realised_change")
    assert [colour[:16] for *_, colour in tokens] == [blue[:16], orange[:16], blue[:16]]
    page.open(plain, "#rollouts=s1:0:1")
    assert page.ask("document.querySelector('[data-do=colour]').closest('label').hidden")


def test_values_under_the_pointer_and_by_keys(page, plain):
    """m1 is step + 1 of five steps."""
    page.look(width=WIDE)
    page.open(plain)
    page.ask("document.querySelector('#curves details').open = true")
    page.ask("window.chart = [...document.querySelectorAll('.chart')].find("
             "f => f.querySelector('b').textContent === 'm1')")  # fmt: skip
    page.ask("chart.scrollIntoView({block: 'center'})")
    x, y, wide = page.ask("(b => [b.left, b.top + 20, b.width])"
                          "(chart.querySelector('svg').getBoundingClientRect())")  # fmt: skip
    page.move(x + 0.52 * wide, y)
    assert page.ask("chart.querySelector('output').textContent") == "step 3: 4"
    others = page.ask("[...document.querySelectorAll('.chart output')].slice(0, 6)"
                      ".map(o => o.textContent)")  # fmt: skip
    assert others == [f"step 3: {3 + i}" for i in range(6)]  # of the same stage
    page.move(2, 2)
    assert page.ask("chart.querySelector('output').textContent") == "6"  # the last value
    page.ask("chart.querySelector('svg').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.ask("chart.querySelector('output').textContent") == "step 2: 3"
    assert page.complaints == []


def test_colours_as_the_system_has_them_or_as_chosen(page, plain):
    paper = "getComputedStyle(document.body).backgroundColor"
    page.look(width=WIDE, dark=True)
    page.open(plain)
    dark = page.ask(paper)
    page.look(width=WIDE, dark=False)
    light = page.ask(paper)
    assert dark != light
    button = "document.getElementById('theme')"
    page.ask(f"{button}.click()")
    assert page.ask(f"{button}.title") == "colours: light" and page.ask(paper) == light
    page.ask(f"{button}.click()")
    assert page.ask(f"{button}.title") == "colours: dark" and page.ask(paper) == dark
    page.open(plain)
    assert page.ask(paper) == dark  # it is remembered
    page.ask(f"{button}.click()")
    assert page.ask(f"{button}.title") == "colours: as the system" and page.ask(paper) == light
    assert page.complaints == []
