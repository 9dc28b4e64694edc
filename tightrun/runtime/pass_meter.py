"""What a pass did and took: read off the device's lanes, told as a row of the steps table."""

from __future__ import annotations

from tightrun.core import StepRecord, TraceSpan
from tightrun.policies.kv import PassMeasured
from tightrun.runtime.accounts import Traffic
from tightrun.runtime.batch import Segment
from tightrun.runtime.context_links import ContextLinks
from tightrun.runtime.device import Device, LaneSpan
from tightrun.runtime.pass_plan import PlannedPass
from tightrun.runtime.weights import Weights


class PassMeter:
    """Reads the lanes of a device between passes."""

    def __init__(self, device: Device, weights: Weights, links: ContextLinks | None) -> None:
        self._device, self._weights, self._links = device, weights, links
        self._spans: list[LaneSpan] = []
        self._last = self._now()
        self.began_s = device.now()

    def begin_run(self) -> None:
        """What came before is not part of the run."""
        self.read()
        self.began_s = self._device.now()

    def read(self) -> Traffic:
        """What the lanes did since the last reading. On CUDA, what is over by now."""
        self._spans = self._device.spans()
        now = self._now()
        traffic, self._last = now.since(self._last), now
        return traffic

    def spans(self, iteration: int) -> list[TraceSpan]:
        """The spans of the last reading, as parts of that pass."""
        began = self.began_s
        return [
            TraceSpan(iteration, x.lane, x.name, x.start_s - began, x.end_s - began, x.nbytes)
            for x in self._spans
        ]

    def measured(self, planned: PlannedPass, elapsed_s: float, traffic: Traffic) -> PassMeasured:
        """The same for the distributor. On a processor planning and sampling take the time of
        computing; on CUDA they run beside it."""
        busy_s = traffic.computing_s
        if self._device.torch.type == "cpu":
            busy_s = max(busy_s, elapsed_s - traffic.waited_s)
        return PassMeasured(
            elapsed_s=elapsed_s,
            compute_s=busy_s,
            link_in_s=traffic.h2d_s,
            link_in_bytes=traffic.h2d_bytes,
            link_out_s=traffic.d2h_s,
            link_out_bytes=traffic.d2h_bytes,
            disk_s=traffic.disk_s,
            disk_bytes=traffic.disk_bytes,
            recomputed=planned.left,
        )

    def _now(self) -> Traffic:
        device, links = self._device, self._links
        return Traffic(
            computing_s=device.computing_s,
            waited_s=device.waited_s,
            h2d_s=device.link_in.busy_s,
            d2h_s=device.link_out.busy_s,
            disk_s=device.disk.busy_s,
            h2d_bytes=device.link_in.moved_bytes,
            d2h_bytes=device.link_out.moved_bytes,
            disk_bytes=device.disk.moved_bytes,
            weight_bytes=self._weights.bytes_sent,
            kv_bytes_in=links.bytes_in if links else 0,
            kv_bytes_out=links.bytes_out if links else 0,
        )


def step_of(
    iteration: int,
    block: list[list[Segment]],
    planned: PlannedPass,
    traffic: Traffic,
    *,
    started_s: float,
    elapsed_s: float,
    bound_s: float,
) -> StepRecord:
    """The pass as a row; times in seconds, `started_s` since the run began."""
    decode = sum(s.tokens for segments in block for s in segments if s.tokens == 1)
    prefill = sum(s.tokens for segments in block for s in segments) - decode
    return StepRecord(
        run=1,
        iteration=iteration,
        phase="decode" if not prefill else "mixed" if decode else "prefill",
        started_s=started_s,
        elapsed_s=elapsed_s,
        batches=len(planned.batches),
        sequences=sum(map(len, block)),
        prefill_tokens=prefill,
        decode_tokens=decode,
        context_tokens=sum(b.context_tokens for b in planned.load.batches),
        recompute_ratio=planned.recomputed_tokens / max(1, planned.offloaded_tokens),
        recompute_form=planned.decision.form if planned.recomputed_tokens else "",
        weight_bytes_in=traffic.weight_bytes,
        kv_bytes_in=traffic.kv_bytes_in,
        kv_bytes_out=traffic.kv_bytes_out,
        disk_bytes=traffic.disk_bytes,
        compute_s=traffic.computing_s,
        h2d_s=traffic.h2d_s,
        d2h_s=traffic.d2h_s,
        disk_s=traffic.disk_s,
        idle_s=max(0.0, elapsed_s - traffic.computing_s),
        predicted_s=planned.decision.elapsed_s,
        bound_s=bound_s,
    )
