"""Which model a job means, told by its files; no weight is read, and torch stays away."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tightrun.cli.engine_seam import RefusedError
from tightrun.io.job_sections import ModelSpec

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"


def model_identity(model: ModelSpec) -> list[str]:
    """Lines that change with the model's config, its code, or what its weights are stored in.

    The config of a hub model that is not here is downloaded. Raises RefusedError.
    """
    folder = Path(model.path)
    if not folder.is_dir():
        folder = _snapshot(model)
    try:
        return [f"{folder.resolve()}", *_files(folder, code=model.trust_remote_code)]
    except OSError as error:
        raise RefusedError(f"cannot read the model at {model.path}: {error}") from error


def _files(folder: Path, *, code: bool) -> Iterator[str]:
    if not (folder / CONFIG).is_file():
        raise RefusedError(
            f"{folder} holds no {CONFIG}: name the folder of a model, or its hub name"
        )
    for path in [folder / CONFIG, folder / INDEX, *sorted(folder.glob("*.py") if code else ())]:
        if path.is_file():
            yield f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        yield f"{path.name} {path.stat().st_size} {header}"


def _snapshot(model: ModelSpec) -> Path:
    """The folder that the hub's cache has for the model: named by its commit."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(model.path, CONFIG, revision=model.revision)).parent
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise RefusedError(
            f"cannot read the config of {model.path}: {reason} It is neither a folder here nor to "
            f"be had from the hub. Where there is no network, download it elsewhere with "
            f"`hf download {model.path}` and give its folder."
        ) from error
