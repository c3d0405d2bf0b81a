"""The Hub without a network: what the cache holds, what is asked for, what each failure says."""

import importlib
import traceback

import pytest
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from models import load_model
from models.checkpoints import hf
from models.checkpoints.files import INDEX, CheckpointError
from models.checkpoints.hub import local_directory
from tests.gguf_files import tiny_file
from tests.helpers import TINY3, assert_trees_equal, tiny_params

REPO, TOKEN = "owner/some-name_1.0", "hf_canaryCanaryCanaryCanaryCanary"
MAIN, OTHER = "a" * 40, "b" * 40
NOT_CACHED = "it is not in the cache and the Hub did not answer: connect, or pass a local directory"
FAILED = "the download failed ({}); run again to resume it"
httpx = importlib.import_module(errors.HfHubHTTPError.__mro__[1].__module__.split(".")[0])


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, an empty cache, and a token that nothing may show."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def snapshots(tmp_path):
    """Two commits of a repository in the cache, and a branch for each."""
    repo = tmp_path / "cache" / "models--owner--some-name_1.0"
    for branch, commit in (("main", MAIN), ("v2", OTHER)):
        for folder in (repo / "refs", repo / "snapshots" / commit):
            folder.mkdir(parents=True, exist_ok=True)
        (repo / "refs" / branch).write_text(commit)
    return repo / "snapshots"


def fill(snapshot, tmp_path):
    """The tiny model as the Hub's cache holds one: links to blobs."""
    saved = hf.save(tmp_path / "saved", TINY3, tiny_params("gemma3"), None, shard_bytes=150_000)
    blobs = snapshot.parent.parent / "blobs"
    saved.rename(blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")


def refusal(call, *args, **options):
    """The error of a call: one line, without a trace of the token or of the error behind it."""
    with pytest.raises(CheckpointError) as caught:
        call(*args, **options)
    error = caught.value
    assert error.__cause__ is None and error.__context__ is None
    assert TOKEN not in "".join(traceback.format_exception(error))
    assert len(str(error).splitlines()) == 1
    return str(error)


@pytest.mark.parametrize(
    ("revision", "commit"),
    [(None, MAIN), ("main", MAIN), ("v2", OTHER), (OTHER, OTHER), (MAIN, MAIN)],
)
def test_cached_snapshots(revision, commit, snapshots):
    assert local_directory(REPO, revision) == snapshots / commit


def test_a_model_from_the_cache(snapshots, tmp_path):
    fill(snapshots / OTHER, tmp_path)
    model = load_model(REPO, revision="v2")
    assert_trees_equal(model.params, tiny_params("gemma3"))
    assert refusal(load_model, REPO) == f"{snapshots / MAIN}/config.json: no such file"


def test_a_download_that_was_interrupted(snapshots, tmp_path):
    fill(snapshots / MAIN, tmp_path)
    shard = next((snapshots / MAIN).glob("model-00002-*"))
    shard.resolve().rename(f"{shard.resolve()}.incomplete")  # a link to nothing is left
    expected = f"{snapshots / MAIN}/{INDEX}: names {shard.name}, which is not in the directory"
    assert refusal(load_model, REPO) == expected
    shard.unlink()
    assert refusal(load_model, REPO) == expected


@pytest.mark.parametrize(
    ("repo", "revision", "name"),
    [
        ("owner/other", None, "owner/other"),
        ("owner/other", "v2", "owner/other at v2"),
        (REPO, "v3", f"{REPO} at v3"),
        (REPO, "c" * 40, f"{REPO} at {'c' * 40}"),
    ],
)
def test_what_is_not_cached(repo, revision, name, snapshots):
    assert refusal(local_directory, repo, revision) == f"{name}: {NOT_CACHED}"
    assert refusal(load_model, repo, revision=revision) == f"{name}: {NOT_CACHED}"


def from_server(kind, status):
    """An error as huggingface_hub raises it, with all that its request and text could give away."""
    url = f"https://user:{TOKEN}@huggingface.co/api/models/{REPO}"
    request = httpx.Request("GET", url, headers={"authorization": f"Bearer {TOKEN}"})
    text = f"{status} Client Error for url: {url}\nAuthorization: Bearer {TOKEN}"
    return kind(text, response=httpx.Response(status, request=request))


FAILURES = (
    (
        from_server(errors.GatedRepoError, 403),
        f"accept its licence at huggingface.co/{REPO} and set HF_TOKEN",
    ),
    (
        from_server(errors.RepositoryNotFoundError, 401),
        "there is no such repository, or it is private: check the name and HF_TOKEN",
    ),
    (from_server(errors.RevisionNotFoundError, 404), "there is no such revision"),
    (errors.LocalEntryNotFoundError(f"Got: ConnectError: {TOKEN}\nAn error happened"), NOT_CACHED),
    (errors.OfflineModeIsEnabled(TOKEN), NOT_CACHED),
    (from_server(errors.HfHubHTTPError, 500), FAILED.format("HfHubHTTPError")),
    (from_server(errors.DisabledRepoError, 403), FAILED.format("DisabledRepoError")),
    (httpx.ConnectError(TOKEN), FAILED.format("ConnectError")),
    (httpx.ProxyError(TOKEN), FAILED.format("ProxyError")),
    (httpx.ReadTimeout(TOKEN), FAILED.format("ReadTimeout")),
    (httpx.RemoteProtocolError(TOKEN), FAILED.format("RemoteProtocolError")),
    (ConnectionResetError(104, TOKEN), FAILED.format("ConnectionResetError")),
    (OSError(28, "No space left on device"), FAILED.format("OSError")),
    (RuntimeError(f"Data processing error: {TOKEN}"), FAILED.format("RuntimeError")),  # hf_xet
)


@pytest.mark.parametrize("revision", [None, "v2"])
@pytest.mark.parametrize(
    ("error", "fix"), FAILURES, ids=[type(error).__name__ for error, _ in FAILURES]
)
def test_failures(error, fix, revision, monkeypatch):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    name = REPO if revision is None else f"{REPO} at {revision}"
    assert refusal(local_directory, REPO, revision) == f"{name}: {fix}"


def test_only_config_weights_and_tokenizer_are_asked_for(monkeypatch, tmp_path):
    asked = []

    def download(*args, **options):
        asked.append((args, options))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert local_directory(REPO, "v2") == tmp_path
    ((args, options),) = asked
    patterns = options.pop("allow_patterns")
    assert (args, options) == ((REPO,), {"revision": "v2"})  # the token is huggingface_hub's matter
    safe = [
        "config.json",
        "generation_config.json",
        INDEX,
        "model-00001-of-00002.safetensors",
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.model",
    ]
    others = [
        *("pytorch_model.bin", "model.ckpt", "consolidated.pt", "model.pth", "tf_model.h5"),
        *("flax_model.msgpack", "training_args.bin", "optimizer.pkl", "model.npz", "model.gguf"),
        *("modeling_gemma.py", "README.md", ".gitattributes", "tokenizer.model.bak", "a.json.bin"),
    ]
    assert list(filter_repo_objects([*others, *safe], allow_patterns=patterns)) == safe


def test_directories_are_not_looked_for_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("asked"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    for path in (folder, str(folder), "~/owner/name", "owner/name"):
        assert local_directory(path, None).samefile(folder)
    for path in ("name", "a/b/c", "/owner/none", "./owner/none", "../none", "owner/na me", "o/n\n"):
        assert refusal(local_directory, path, None).endswith(
            ": no such directory, and not a Hub repository `owner/name`"
        )


@pytest.mark.parametrize("repo", ["a--b/c", "a/b..c", "a/b.git", "-a/b", "a/" + "b" * 97])
def test_names_that_no_repository_has(repo):
    expected = f"{repo}: no such directory, and not a name that a Hub repository can have"
    assert refusal(local_directory, repo, None) == expected


def test_a_gguf_file_of_a_repository(snapshots, tmp_path):
    file, config, params = tiny_file("gemma3")
    file.write(snapshots / OTHER / "tiny.gguf")
    model = load_model(f"{REPO}/tiny.gguf", revision="v2")
    assert model.config == config
    assert_trees_equal(model.params, params)
    expected = f"{REPO}/none.gguf at v2: {NOT_CACHED.replace('local directory', 'local file')}"
    assert refusal(load_model, f"{REPO}/none.gguf", revision="v2") == expected
    for path in ("a.gguf", "b/a.gguf", "a/b/c/a.gguf", "../b/c.gguf", "a/b/..gguf/d.gguf"):
        assert refusal(load_model, path) == (
            f"{path}: no such file, and not `owner/name/FILE.gguf` of the Hub"
        )
