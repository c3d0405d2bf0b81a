"""The parts of a document that a script makes: from `<!-- name -->` to `<!-- /name -->`."""

import pathlib

DOCS = pathlib.Path(__file__).parent.parent / "docs"


def put(page: pathlib.Path, name: str, text: str) -> None:
    """The part `name` of the page becomes `text`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = page.read_text("utf-8").split(begin)
    page.write_text(f"{before}{begin}{text.strip()}\n{end}{rest.split(end)[1]}", "utf-8")
