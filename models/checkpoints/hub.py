"""Repositories of the Hugging Face Hub as local directories: resumable, offline from the cache."""

import os
import pathlib
import re

import huggingface_hub
from huggingface_hub import errors

from models.checkpoints.files import CheckpointError

FILES = ("*.json", "*.safetensors", "tokenizer.model")  # never a pickle


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
    except errors.GatedRepoError:
        fix = f"accept its licence at huggingface.co/{repo} and set HF_TOKEN"
    except errors.RevisionNotFoundError:
        fix = "there is no such revision"
    except errors.RepositoryNotFoundError:
        fix = "there is no such repository, or it is private: check the name and HF_TOKEN"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        fix = (
            "it is not in the cache and the Hub did not answer: connect, or pass a local directory"
        )
    except errors.HFValidationError:
        fix = "no such directory, and not a name that a Hub repository can have"
    except Exception as error:  # of its HTTP client, transfer service and file system
        fix = f"the download failed ({type(error).__name__}); run again to resume it"
    raise CheckpointError(f"{name}: {fix}")
