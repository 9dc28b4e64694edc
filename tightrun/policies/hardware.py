"""What a machine offers: how much may be used and how fast it is."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkTimes:
    """What the work of one model takes on one device, timed with the links running.

    `layer_s` are seconds of a whole layer without its attention by rows, of a layer of mean size:
    times the number of layers it is the model. `head_s` are those of the final norm, the head and
    greedy sampling by rows, with all that the host does for a row that gets a token.
    `attended_bytes_per_s` is KV read by decode attention, `attended_flops_per_s` the rate of
    prefill's; beside them each layer's attention takes `attention_s`, its calls and small kernels,
    and each layer of a batch with context off the device `context_s` to send and fetch it.
    `batch_s` and `pass_s` are what the host needs for every batch and every pass beside them,
    `disk_takes` the share of computing that is lost while the disk is read, `disk_loses` that of
    the disk's rate that is lost while something is computed. `packed` says that
    weights were laid out beforehand, as resident ones are where that pays.
    Never part of a bound.
    """

    layer_s: tuple[tuple[int, float], ...]
    head_s: tuple[tuple[int, float], ...]
    attended_bytes_per_s: float
    attended_flops_per_s: float
    batch_s: float = 0.0
    pass_s: float = 0.0
    packed: bool = False
    attention_s: float = 0.0
    context_s: float = 0.0
    disk_takes: float = 0.0
    disk_loses: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured rates: FLOP/s by rows of a matrix product, bandwidths in bytes/s.

    `memory` is the device's, `host` the host's. `h2d` is host to device, `d2h` device to host,
    `duplex` both together while both run (0.0: no less than their sum), `disk` the reading of a
    disk; 0.0 says that there is no such link, and what would cross it takes no time.
    `work` is None
    where nobody could time the model itself, as on a machine that is only described.
    """

    flops_per_s: tuple[tuple[int, float], ...]
    memory_bytes_per_s: float
    h2d_bytes_per_s: float = 0.0
    d2h_bytes_per_s: float = 0.0
    disk_bytes_per_s: float = 0.0
    duplex_bytes_per_s: float = 0.0
    host_bytes_per_s: float = 0.0
    work: WorkTimes | None = None

    @property
    def disk_takes(self) -> float:
        """The share of computing that is lost while the disk is read."""
        return self.work.disk_takes if self.work is not None else 0.0

    @property
    def disk_loses(self) -> float:
        """The share of the disk's rate that is lost while something is computed."""
        return self.work.disk_loses if self.work is not None else 0.0

    def beside_disk(self, compute_s: float, disk_s: float) -> tuple[float, float]:
        """Seconds of computing and of reading, each as it is alone, beside one another.

        What is over first runs beside the other all the time, and takes its share from it.
        """
        if not disk_s:
            return compute_s, 0.0
        takes, loses = self.disk_takes, self.disk_loses
        return compute_s + takes * disk_s / (1 - loses), disk_s + loses * compute_s / (1 - takes)

    def flops_at(self, rows: int) -> float:
        """FLOP/s of a matrix product of `rows` rows. Between two points time is a straight line:
        the reading of the weights, and so much for each row."""
        points = self.flops_per_s
        at = bisect_left([r for r, _ in points], rows)
        if at == 0:
            first_rows, first = points[0]
            return first * max(rows, 1) / first_rows
        if at == len(points):
            return points[-1][1]
        (r0, f0), (r1, f1) = points[at - 1], points[at]
        s0, s1 = r0 / f0, r1 / f1
        return rows / (s0 + (s1 - s0) * (rows - r0) / (r1 - r0))

    @property
    def best_flops_per_s(self) -> float:
        return max(rate for _, rate in self.flops_per_s)


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of one memory that this process may use, and the limit that set the figure."""

    bytes: int
    limit: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine a job is planned for. On a CPU device both budgets are the same memory."""

    device: str
    device_memory: Budget
    host_memory: Budget
    cores: int
