"""A page: one file that asks nothing of anybody else.

The Content-Security-Policy lets run the script of this package and no other, by its hash, and loads
nothing: a text that was not escaped could still do nothing. It allows no style in attributes, so
drawings have classes.
"""

import base64
import functools
import hashlib
import pathlib
import re
from collections.abc import Sequence

from grpo.reporting.html.markup import escaped

HERE = pathlib.Path(__file__).parent
SCRIPTS = ("theme.js", "chart.js", "viewer.js")
HEADING = re.compile(r'<section id="([a-z]+)"><h2>([^<]*)</h2>')


@functools.cache
def style() -> str:
    """The style of all pages."""
    return (HERE / "style.css").read_text("utf-8")


@functools.cache
def script() -> str:
    """The script of all pages."""
    return "\n".join((HERE / name).read_text("utf-8") for name in SCRIPTS)


def digest(content: str) -> str:
    """The hash by which a policy knows a script or a style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def policy() -> str:
    """What a page may do."""
    return (
        f"default-src 'none'; script-src '{digest(script())}'; style-src '{digest(style())}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def page(title: str, head: str, sections: Sequence[str]) -> str:
    """The whole file: a head, then sections, which the bar at the top leads to."""
    body = "\n".join(part for part in sections if part)
    links = "".join(f'<a href="#{name}">{text}</a>' for name, text in HEADING.findall(body))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy()}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escaped(title)}</title>
<style>{style()}</style>
</head>
<body>
<a class="skip" href="#main">to the content</a>
<nav aria-label="sections"><div class="links"><a href="#overview">Overview</a>{links}</div>
<button type="button" id="theme" aria-label="colours: as the system">◐</button></nav>
<main id="main">
{head}
{body}
</main>
<script>{script()}</script>
</body>
</html>
"""
