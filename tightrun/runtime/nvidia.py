"""Free memory of the GPUs that CUDA will see, asked of NVIDIA's driver without starting CUDA.

CUDA numbers the GPUs as CUDA_VISIBLE_DEVICES says; the driver's library (NVML) knows nothing of it.
The rules are those of the CUDA programming guide (environment variables) and the MIG user guide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tightrun.policies.hardware import Budget

# Taken from the card by CUDA itself (context, libraries' code) once a process uses it: never free.
CUDA_OWN_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or an instance of one that is cut up (MIG). `free_bytes` and `total_bytes` are None
    where the driver does not tell, as on systems whose GPU shares the host's memory."""

    name: str
    uuid: str
    free_bytes: int | None
    total_bytes: int | None
    is_instance: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """A card, and what CUDA can use of it: itself, or its instances (maybe none)."""

    uuid: str
    gpus: tuple[Gpu, ...]


def visible_gpus(environment: Mapping[str, str], nvml: Any) -> list[Gpu]:
    """The GPUs in CUDA's order: number i is cuda:i. Empty without driver or GPU.

    `nvml` is the module pynvml. Raises ValueError if there is a driver that does not answer.
    """
    try:
        cards = _cards(nvml)
    except nvml.NVMLError as error:
        raise ValueError(
            f"the NVIDIA driver does not answer: {error}; repair it, or use hardware: cpu"
        ) from error
    asked = environment.get("CUDA_VISIBLE_DEVICES")
    chosen = (
        [card.gpus[0] for card in cards if card.gpus] if asked is None else _chosen(asked, cards)
    )
    # One process can use one instance only: the first that it sees.
    instances = [gpu for gpu in chosen if gpu.is_instance]
    return [gpu for gpu in chosen if gpu not in instances[1:]]


def gpu_memory(number: int, environment: Mapping[str, str], nvml: Any) -> Budget | None:
    """Bytes of cuda:`number` that can be taken, None if the driver does not tell.

    Raises ValueError for a GPU that is not there.
    """
    gpus = visible_gpus(environment, nvml)
    if not gpus and "CUDA_VISIBLE_DEVICES" not in environment:
        raise ValueError(
            f"hardware: cuda:{number} was asked for, but NVIDIA's driver library shows no GPU; "
            "in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility, or use hardware: cpu"
        )
    if number >= len(gpus):
        raise ValueError(
            f"hardware: cuda:{number} was asked for, but CUDA sees {len(gpus)} GPUs"
            f"{_restriction(environment)}; use hardware: cpu or auto"
        )
    gpu = gpus[number]
    if gpu.free_bytes is None:
        return None
    words = "free GPU memory" + (" of the MIG instance" if gpu.is_instance else "")
    if len({x.name for x in gpus}) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        words += f" (if cuda:{number} is the {gpu.name}; CUDA_DEVICE_ORDER=PCI_BUS_ID makes sure)"
    return Budget(max(0, gpu.free_bytes - CUDA_OWN_BYTES), words)


def _cards(nvml: Any) -> list[Card]:
    """All cards that this process may use, none where there is no driver."""
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return []
    try:
        return [_card_of(handle, nvml) for handle in _reachable(nvml)]
    finally:
        nvml.nvmlShutdown()


def _reachable(nvml: Any) -> Iterator[Any]:
    """The driver's handles without those that this process (a Slurm job, say) may not open:
    CUDA does not count them."""
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            yield nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError_NoPermission:
            continue


def _card_of(handle: Any, nvml: Any) -> Card:
    card = _gpu_of(handle, str(nvml.nvmlDeviceGetName(handle)), nvml)
    if not _is_cut_up(handle, nvml):
        return Card(card.uuid, (card,))
    found = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError_NotFound:
            continue
        found.append(_gpu_of(instance, card.name, nvml, is_instance=True))
    return Card(card.uuid, tuple(found))


def _is_cut_up(handle: Any, nvml: Any) -> bool:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return False
    return bool(current)


def _gpu_of(handle: Any, name: str, nvml: Any, is_instance: bool = False) -> Gpu:
    uuid = str(nvml.nvmlDeviceGetUUID(handle))
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        return Gpu(name, uuid, None, None, is_instance)
    return Gpu(name, uuid, int(memory.free), int(memory.total), is_instance)


def _chosen(asked: str, cards: list[Card]) -> list[Gpu]:
    """What a value of CUDA_VISIBLE_DEVICES stands for: all up to the first that is not there."""
    chosen: list[Gpu] = []
    for word in asked.split(","):
        gpu = _named(word.strip(), cards)
        if gpu is None:
            break
        if gpu in chosen:
            return []
        chosen.append(gpu)
    return chosen


def _named(word: str, cards: list[Card]) -> Gpu | None:
    """By number, by UUID of a card or by UUID of an instance (as many characters of it as make it
    clear); of a card that is cut up the first instance."""
    if word.isdecimal():
        found = [card.gpus[:1] for card in cards[int(word) : int(word) + 1]]
    elif word.startswith("GPU-"):
        found = [card.gpus[:1] for card in cards if card.uuid.startswith(word)]
    elif word.startswith("MIG-"):
        gpus = [gpu for card in cards for gpu in card.gpus]
        found = [(gpu,) for gpu in gpus if gpu.uuid.startswith(word)]
    else:
        found = []
    return found[0][0] if len(found) == 1 and found[0] else None


def _restriction(environment: Mapping[str, str]) -> str:
    asked = environment.get("CUDA_VISIBLE_DEVICES")
    return "" if asked is None else f" (CUDA_VISIBLE_DEVICES={asked})"
