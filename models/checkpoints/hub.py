"""Repositories of the Hugging Face Hub as local directories: resumable, offline from the cache."""

import os
import pathlib
import re

import huggingface_hub
from huggingface_hub import errors

from models.checkpoints.files import CheckpointError

FILES = ("*.json", "*.safetensors", "tokenizer.model")  # never a pickle


def local_file(path: str | pathlib.Path, revision: str | None) -> pathlib.Path | None:
    """The GGUF file that a path ends in: a local one, or `owner/name/FILE.gguf` of the Hub."""
    file = pathlib.Path(path).expanduser()
    if file.suffix != ".gguf" or os.path.isdir(file):
        return None
    if os.path.exists(file):
        if revision is not None:
            raise CheckpointError(f"{path}: a local file has no revision {revision!r}")
        return file
    match = re.fullmatch(r"([\w-][\w.-]*/[\w.-]+)/([\w.-]+)", str(path))
    if match is None:
        raise CheckpointError(f"{path}: no such file, and not `owner/name/FILE.gguf` of the Hub")
    return download_file(match[1], match[2], revision)


def local_directory(path: str | pathlib.Path, revision: str | None) -> pathlib.Path:
    """`path` if it is a directory, else the repository `owner/name` at a revision."""
    directory = pathlib.Path(path).expanduser()
    if str(path) and os.path.isdir(directory):  # which, unlike Path.is_dir, takes any name
        if revision is not None:
            raise CheckpointError(f"{path}: a local directory has no revision {revision!r}")
        return directory
    if str(path) and os.path.exists(directory):
        raise CheckpointError(f"{path}: a file, where a checkpoint directory is expected")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) or str(path).startswith("."):
        raise CheckpointError(f"{path}: no such directory, and not a Hub repository `owner/name`")
    return download(str(path), revision)


def download(repo: str, revision: str | None) -> pathlib.Path:
    """The repository's config, weights and tokenizer, from the cache or the Hub."""
    name = repo if revision is None else f"{repo} at {revision}"
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=list(FILES))
        )
    except Exception as error:  # of the Hub, its HTTP client, transfer service and file system
        fix = remedy(error, page=repo, local="directory")
    raise CheckpointError(f"{name}: {fix}")


def download_file(repo: str, name: str, revision: str | None) -> pathlib.Path:
    """One file of a repository, from the cache or the Hub."""
    where = f"{repo}/{name}" if revision is None else f"{repo}/{name} at {revision}"
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(repo, name, revision=revision))
    except Exception as error:  # as above
        fix = remedy(error, page=repo, local="file")
    raise CheckpointError(f"{where}: {fix}")


def remedy(error: Exception, page: str, local: str) -> str:
    """What to do about a failed download; `local` is what one can pass in place of its name."""
    if isinstance(error, errors.GatedRepoError):
        return f"accept its licence at huggingface.co/{page} and set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private: check the name and HF_TOKEN"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            f"it is not in the cache and the Hub did not answer: connect, or pass a local {local}"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"huggingface.co/{page} has no such file"
    if isinstance(error, errors.HFValidationError):
        return f"no such {local}, and not a name that a Hub repository can have"
    return f"the download failed ({type(error).__name__}); run again to resume it"
