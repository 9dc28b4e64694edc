"""Keeps the progress bars and advice of other libraries out of the view."""

from __future__ import annotations

from collections.abc import MutableMapping

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def quiet_libraries(environment: MutableMapping[str, str]) -> None:
    """Silences datasets, transformers, huggingface_hub and tqdm, none of which is imported yet.

    They read the environment when they are first imported, which the command line does late.
    What a person has set stays as it is.
    """
    for name, value in _QUIET.items():
        environment.setdefault(name, value)
