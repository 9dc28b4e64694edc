"""A model whose layers are nowhere yet: built without its weights, filled layer by layer.

Parameters are on the meta device, buffers are real. What surrounds the layers is loaded to stay;
each layer becomes a slab, in host memory or on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig

from tightrun.runtime.checkpoint import ModelSource
from tightrun.runtime.checkpoint_files import CheckpointFiles, open_checkpoint
from tightrun.runtime.checkpoint_headers import open_headers
from tightrun.runtime.checkpoint_keys import Conversion
from tightrun.runtime.direct_files import DirectFiles
from tightrun.runtime.direct_slabs import FileRun, direct_layout
from tightrun.runtime.layer_weights import fill_layer
from tightrun.runtime.meta_model import build_on_meta
from tightrun.runtime.model import ModelRefusedError, find_layers
from tightrun.runtime.outer_weights import OuterWeights
from tightrun.runtime.page_memory import map_pages
from tightrun.runtime.slab import Tier
from tightrun.runtime.slab_layout import SlabLayout, host_layout, layer_parameters
from tightrun.runtime.slabs import DiskSlab, HostSlab, Run
from tightrun.runtime.spilled_slabs import spill, spill_folder, spilled


def open_skeleton(
    source: ModelSource, config: PretrainedConfig, dtype: torch.dtype, *, weights: bool = True
) -> Skeleton:
    """The model of a safetensors checkpoint without its weights; only headers are read.

    `dtype` is what to compute in. Where no `weights` are wanted, none are downloaded, and a config
    alone will do. Raises ModelRefusedError for a checkpoint that is torn, lacks tensors, is
    quantised or belongs to another config.
    """
    if getattr(config, "quantization_config", None):
        raise ModelRefusedError(
            f"{source.path} is quantised; quantised weights cannot be streamed. Use the model's "
            "unquantised checkpoint, or a memory that holds the whole model."
        )
    model = build_on_meta(source, config, dtype)
    if weights:
        files = open_checkpoint(source, getattr(config, "transformers_weights", None))
    else:
        files = open_headers(source, config, model)
    try:
        return Skeleton(source, model, files, dtype)
    except ModelRefusedError:
        files.close()
        raise


class Skeleton:
    """The model, its layers, and where their weights are stored. Close it after the last read."""

    def __init__(
        self, source: ModelSource, model: nn.Module, files: CheckpointFiles, dtype: torch.dtype
    ) -> None:
        self.model = model
        self._parent, self._name, self._list = find_layers(model)
        self.layers: list[nn.Module] = list(self._list)
        self._files = files
        self._direct_files = DirectFiles()
        self._dtype = dtype
        self._conversion = Conversion(model, files, dtype)
        prefix = next(path for path, module in model.named_modules() if module is self._list)
        parameters = [layer_parameters(x, f"{prefix}.{i}") for i, x in enumerate(self.layers)]
        inside = {p.name for each in parameters for p in each}
        self._outer = OuterWeights(model, files, self._conversion, inside)
        self._conversion.refuse_what_is_missing(source.path)
        self._conversion.refuse_wrong_shapes()
        plain = self._conversion.keys.plain
        self._host = [host_layout(i, each) for i, each in enumerate(parameters)]
        self._direct = [direct_layout(i, each, plain) for i, each in enumerate(parameters)]
        self.outer_bytes = self._outer.nbytes

    def __enter__(self) -> Skeleton:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def notes(self) -> list[str]:
        """What a person should know about how the layers are read; grows with `slab`."""
        return self._direct_files.notes

    def slab_bytes(self, layer: int, tier: Tier = "host") -> int:
        """Bytes of slot and, on the host, of place that the layer's slab needs."""
        return self.layout(layer, tier).nbytes

    def layout(self, layer: int, tier: Tier = "host") -> SlabLayout:
        """Where the layer's parameters lie in its slab; nothing is read."""
        direct = self._direct[layer]
        return direct.layout if tier == "disk" and direct is not None else self._host[layer]

    def reads_directly(self, layer: int) -> bool:
        """Whether the layer's disk slab is the checkpoint's own file, with nothing spilled."""
        return self._direct[layer] is not None

    def read_from(self) -> list[Path]:
        """The files that layers on the disk are read from; none where they are converted first, or
        where there are no weights."""
        return self._files.paths if self.reads_directly(0) else []

    def load_outer(self, device: torch.device) -> None:
        """Put what surrounds the layers on the device to stay, and all buffers.

        Raises ModelRefusedError.
        """
        with self._whole():
            self._outer.load(device)
        self.model.eval()
        self.model.requires_grad_(False)

    def imitate_outer(self, device: torch.device) -> None:
        """Put numbers that take no memory where what surrounds the layers belongs, and all
        buffers on the device."""
        with self._whole():
            self._outer.imitate(device)
        self.model.eval()
        self.model.requires_grad_(False)

    def slab(self, layer: int, place: torch.Tensor | Path) -> HostSlab | DiskSlab:
        """The layer's slab: read into `place`, host memory uint8 `[>= slab_bytes(layer)]`, or on
        the disk with `place` the folder for what needs conversion first.

        Raises ModelRefusedError for tensors that do not fit the model, or if nothing can be
        written to the folder.
        """
        if isinstance(place, torch.Tensor):
            self._fill(layer, place)
            return HostSlab(self._host[layer], place)
        direct = self._direct[layer]
        if direct is not None:
            return DiskSlab(direct.layout, tuple(self._run(run) for run in direct.runs))
        return self._spilled_slab(layer, place)

    def close(self) -> None:
        """Close the files, which disk slabs read from."""
        self._files.close()
        self._direct_files.close()

    def _fill(self, layer: int, place: torch.Tensor) -> None:
        with self._whole():
            fill_layer(self._host[layer], place, self._files, self._conversion)

    def _run(self, run: FileRun) -> Run:
        descriptor = self._direct_files.descriptor(run.path)
        end = min(run.end, self._files.file_bytes(run.path))
        return Run(descriptor, run.begin, run.slab_offset, end - run.begin)

    def _spilled_slab(self, layer: int, folder: Path) -> DiskSlab:
        layout = self._host[layer]
        path = spill_folder(folder, self._ingredients()) / f"layer-{layer:05}.slab"
        if not spilled(path, layout.nbytes):
            place = map_pages(layout.nbytes)
            self._fill(layer, place)
            spill(path, place)
        run = Run(self._direct_files.descriptor(path), 0, 0, layout.nbytes)
        return DiskSlab(layout, (run,))

    def _ingredients(self) -> list[str]:
        """What a converted slab's bytes depend on."""
        made = [type(self.model).__name__, str(self._dtype), transformers.__version__]
        return made + self._files.identity()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """The layers in their place, where a cut model has taps: names are found by it."""
        taps = getattr(self._parent, self._name)
        setattr(self._parent, self._name, self._list)
        try:
            yield
        finally:
            setattr(self._parent, self._name, taps)
