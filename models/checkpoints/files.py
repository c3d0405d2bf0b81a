"""Safetensors files, read header first, then tensor by tensor; never anything like a pickle.

Every problem of a directory is found in its headers, before any weight is read; non-finite values
are found as tensors are read. Either way the error is one line that names the file and the tensor,
and no model comes out.
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".npy", ".npz", ".h5")
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # safetensors' name -> NumPy's


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded or written; one line that names the file and the fault."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))  # names in files may hold line breaks


class TensorInfo(NamedTuple):
    """Where a tensor lies and what its file's header says of it."""

    file: pathlib.Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def read_json(path: pathlib.Path) -> dict:
    """A JSON object."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        data = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def read_header(file: pathlib.Path) -> list[TensorInfo]:
    """The tensors of one safetensors file; the library checks their offsets against its size."""
    try:
        with safetensors.safe_open(file, "np") as tensors:
            infos = []
            names = tensors.keys()
            for name in names:
                part = tensors.get_slice(name)
                dtype = str(part.get_dtype())
                shape = tuple(part.get_shape())
                infos.append(TensorInfo(file, name, shape, DTYPES.get(dtype, dtype)))
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a whole safetensors file ({error})") from None
    return infos


def weight_files(directory: pathlib.Path) -> list[pathlib.Path]:
    """The safetensors files of a Hugging Face directory: one, or those of its index."""
    single, index = directory / "model.safetensors", directory / INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index}: has no weight_map")
        names = sorted(set(map(str, weight_map.values())))
        for name in names:
            refuse_pickle(directory / name)
            if pathlib.PurePath(name).name != name:
                raise CheckpointError(f"{index}: file name {name!r} leads out of the directory")
            if not (directory / name).is_file():
                raise CheckpointError(f"{index}: names {name}, which is not in the directory")
        return [directory / name for name in names]
    files = sorted(directory.glob("*.safetensors"))
    if len(files) == 1:
        return files
    if files:
        raise CheckpointError(f"{directory}: {len(files)} safetensors files but no {INDEX}")
    for file in sorted(directory.iterdir()):
        refuse_pickle(file)
    raise CheckpointError(f"{directory}: has no model.safetensors and no {INDEX}")


def refuse_pickle(file: pathlib.Path) -> None:
    """Raises on formats that can run code when they are opened, without opening them."""
    if file.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{file}: {file.suffix} weights are never opened; convert them to safetensors"
        )


def open_tensors(directory: pathlib.Path) -> dict[str, TensorInfo]:
    """Every tensor of a Hugging Face directory, by name."""
    found: dict[str, TensorInfo] = {}
    files = weight_files(directory)
    for file in files:
        for info in read_header(file):
            if info.name in found:
                raise CheckpointError(
                    f"{file}: tensor {info.name} is also in {found[info.name].file.name}"
                )
            found[info.name] = info
    if files[0].name != "model.safetensors" and (directory / INDEX).is_file():
        weight_map = read_json(directory / INDEX)["weight_map"]
        for name, file in weight_map.items():
            if name not in found or found[name].file.name != file:
                raise CheckpointError(f"{directory / INDEX}: tensor {name} is not in {file}")
        for name, info in found.items():
            if name not in weight_map:
                raise CheckpointError(f"{info.file}: tensor {name} is not in {INDEX}")
    return found


def read_tensor(info: TensorInfo) -> np.ndarray:
    """One tensor's values, all of them finite.

    The file is opened anew each time: dropping its memory map gives the pages back that reading has
    touched.
    """
    with safetensors.safe_open(info.file, "np") as tensors:
        values = tensors.get_tensor(info.name)
    refuse_nonfinite(values, f"{info.file}: tensor {info.name}")
    return values


def widest(infos: Iterable[TensorInfo]) -> np.dtype:
    """The dtype that holds all values of some tensors: bfloat16 if all are, else float32."""
    stored = set()
    for info in infos:
        if info.dtype not in DTYPES.values():
            raise CheckpointError(
                f"{info.file}: tensor {info.name} has dtype {info.dtype}, "
                f"expected {', '.join(DTYPES.values())}"
            )
        stored.add(info.dtype)
    return np.dtype(ml_dtypes.bfloat16 if stored == {"bfloat16"} else np.float32)


def refuse_nonfinite(values: np.ndarray, where: str, first: int = 0) -> None:
    """Raises if a float array holds NaN or infinity; its rows are counted from `first`."""
    flat, step = values.reshape(-1), 1 << 22
    for start in range(0, flat.size, step):
        chunk = flat[start : start + step]
        if chunk.dtype == ml_dtypes.bfloat16:
            # All exponent bits set, which is what isfinite looks for, but slowly for bfloat16.
            bad = (chunk.view(np.uint16) & 0x7F80) == 0x7F80
        else:
            bad = ~np.isfinite(chunk)
        if bad.any():
            place = list(map(int, np.unravel_index(start + int(bad.argmax()), values.shape)))
            place[:1] = [row + first for row in place[:1]]
            raise CheckpointError(f"{where} is not finite at {tuple(place)}")


@contextlib.contextmanager
def whole_directory(directory: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary directory to write into, renamed to `directory` at the end."""
    directory = pathlib.Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"{directory}: exists and is not an empty directory; choose another")
    directory.parent.mkdir(parents=True, exist_ok=True)
    tmp = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield tmp
        tmp.chmod(0o755)  # mkdtemp's own is for its owner alone
        os.replace(tmp, directory)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def write_tensors(file: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    """One safetensors file, marked as Hugging Face's loaders expect."""
    contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    safetensors.numpy.save_file(contiguous, file, metadata={"format": "pt"})


def write_json(file: pathlib.Path, data: dict) -> None:
    """A JSON object, indented."""
    file.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
