"""README.md of an output folder: what makes it a Hugging Face dataset, and a few words."""

from __future__ import annotations

from pathlib import Path

import yaml

from tightrun.io.durable import Disk
from tightrun.io.manifest import Manifest

_STATES = {
    "running": "The run has not ended yet; finished shards can be read.",
    "stopped": "The run stopped before its end; finished shards can be read.",
    "complete": "The run is complete.",
}


def write_card(disk: Disk, path: Path, manifest: Manifest, suffix: str) -> None:
    """Writes the card; `suffix` is that of the shards."""
    disk.write_whole(path, [card_text(manifest, suffix).encode()])


def card_text(manifest: Manifest, suffix: str) -> str:
    """The text of the card: YAML front matter with a configuration per table, then Markdown."""
    tables = {"default": f"data/*{suffix}"}
    if suffix == ".parquet":
        # One loader reads all configurations of a folder, so the reports need shards like theirs.
        tables["steps"] = "_tightrun/report/steps/*.parquet"
        tables["runs"] = "_tightrun/report/runs/*.parquet"
    configs = [
        {"config_name": name, "data_files": [{"split": "train", "path": pattern}]}
        for name, pattern in tables.items()
    ]
    front = yaml.safe_dump({"configs": configs}, sort_keys=False)
    return f"---\n{front}---\n\n{_words(manifest, suffix)}"


def _words(manifest: Manifest, suffix: str) -> str:
    model = Path(str(manifest.job["model"]["path"])).name
    errors = ", ".join(f"{count:,} {code}" for code, count in sorted(manifest.errors.items()))
    lines = [
        f"# Output of {model}",
        "",
        f"Written by tightrun {manifest.versions.get('tightrun')}. {_STATES[manifest.state]}",
        "",
        f"- rows: {manifest.rows_done:,} of {manifest.rows:,}",
        f"- failed: {manifest.rows_failed:,}" + (f" ({errors})" if errors else ""),
        f"- started {manifest.started}" + (f", ended {manifest.ended}" if manifest.ended else ""),
        f"- `data/*{suffix}`: one row per input row, in input order; a failed row has its "
        "`error` and no text",
        "- `_tightrun/`: the job as it was resolved, events, and report tables of passes and runs",
        "",
    ]
    return "\n".join(lines)
