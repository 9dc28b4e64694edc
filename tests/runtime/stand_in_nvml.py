"""A stand-in for pynvml: cards and their instances as the driver would show them."""

# ruff: noqa: N801, N802, N818 (the names are pynvml's)

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

GIB = 2**30


class NVMLError(Exception):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


class NVMLError_DriverNotLoaded(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_FunctionNotFound(NVMLError):
    pass


class NVMLError_NotFound(NVMLError):
    pass


@dataclass(frozen=True, slots=True)
class Device:
    """A card or an instance. `slots` are the places for instances of a card that is cut up;
    `free` is None where the driver does not tell it."""

    uuid: str
    free: int | None
    total: int = 24 * GIB
    name: str = "NVIDIA L4"
    slots: tuple[Device | None, ...] | None = None
    can_be_cut_up: bool = True
    is_forbidden: bool = False


class StandInNvml:
    """Answers as the module does; counts starts against ends in `open`."""

    NVMLError = NVMLError
    NVMLError_LibraryNotFound = NVMLError_LibraryNotFound
    NVMLError_DriverNotLoaded = NVMLError_DriverNotLoaded
    NVMLError_NoPermission = NVMLError_NoPermission
    NVMLError_NotSupported = NVMLError_NotSupported
    NVMLError_FunctionNotFound = NVMLError_FunctionNotFound
    NVMLError_NotFound = NVMLError_NotFound

    def __init__(self, *cards: Device, fails: NVMLError | None = None) -> None:
        self._cards, self._fails, self.open = cards, fails, 0

    def nvmlInit(self) -> None:
        if self._fails:
            raise self._fails
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        if self._cards[index].is_forbidden:
            raise NVMLError_NoPermission
        return self._cards[index]

    def nvmlDeviceGetName(self, device: Device) -> str:
        return device.name

    def nvmlDeviceGetUUID(self, device: Device) -> str:
        return device.uuid

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> SimpleNamespace:
        if device.free is None:
            raise NVMLError_NotSupported
        return SimpleNamespace(free=device.free, total=device.total)

    def nvmlDeviceGetMigMode(self, device: Device) -> list[int]:
        if not device.can_be_cut_up:
            raise NVMLError_NotSupported
        return [int(device.slots is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:
        return len(device.slots or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, index: int) -> Device:
        instance = (device.slots or ())[index]
        if instance is None:
            raise NVMLError_NotFound
        return instance
