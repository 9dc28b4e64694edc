"""Whether the installed torch can use a GPU, without importing it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path


def cuda_version(installed: Path | None = None) -> str | None:
    """The CUDA version torch was built for, such as "13.0"; None for a build without CUDA.

    `installed` is the folder of the package, by default the one that `import torch` would take.
    """
    if installed is None:
        spec = find_spec("torch")
        if spec is None or spec.origin is None:
            return None
        installed = Path(spec.origin).parent
    text = (installed / "version.py").read_text()
    match = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return match[1] if match else None
