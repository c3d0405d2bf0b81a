"""What the site has beside docs/: README in front, two guides, and links as they are on GitHub.

Pages link to each other and to files of the tree by their places there. Links to what is a page are
turned to it; those to source lead to `repo_url`, where mkdocs.yml has one, else their text stays.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File
from pymdownx.slugs import slugify

ROOT = pathlib.Path(__file__).parent.parent
TOP = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
FENCE = re.compile(r"(^ *```.*?^ *``` *$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!\\)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config):
    """Anchors as GitHub makes them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files, config):
    """Adds the pages that lie at the top of the tree."""
    for source, page in TOP.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns the links of a page."""
    sources = {name: source for source, name in TOP.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def turned(found):
        text, link = found.groups()
        path, hash_, anchor = link.partition("#")
        if not path or re.match(r"[a-z]+:", link):
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if target in TOP:
            return f"[{text}]({TOP[target]}{hash_}{anchor})"
        if target.startswith("docs/"):
            return f"[{text}]({target.removeprefix('docs/')}{hash_}{anchor})"
        return f"[{text}]({config.repo_url}/blob/main/{target})" if config.repo_url else text

    parts = FENCE.split(markdown)
    return "".join(part if n % 2 else LINK.sub(turned, part) for n, part in enumerate(parts))
