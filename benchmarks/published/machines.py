"""The machines that were measured on, by rates published with the systems, or by the makers.

None of these was chosen to make a prediction fit.
"""

from __future__ import annotations

from tightrun.policies.hardware import Rates

GIB = 2**30
TERA = 1e12

# FlexGen (arXiv 2303.06865) fits its own cost model to a T4 with 208 GB of host memory: the link
# in, the link out for KV, the disk, products at the rows of decode and at those of prefill. Its
# attention on the processor makes 0.0123 TFLOP/s; of plain multi-head attention in float16 a FLOP
# stands for a byte of KV. Device memory: NVIDIA's data sheet of the T4.
FLEXGEN_T4 = Rates(
    flops_per_s=((1, 4.3 * TERA), (64, 4.3 * TERA), (2048, 21.24 * TERA)),
    memory_bytes_per_s=300e9,
    h2d_bytes_per_s=12.89 * GIB,
    d2h_bytes_per_s=0.97 * GIB,
    disk_bytes_per_s=0.473 * GIB,
    host_bytes_per_s=0.0123 * TERA,
)
# The disk of the same machine as FlexGen describes it in its section 6: reads at about 2 GB/s.
FLEXGEN_T4_DISK_BYTES_PER_S = 2e9

# Memory that is not pinned is copied twice: by one core of the processor into the driver's buffer,
# at about 6 GB/s on a Xeon of that time, and from there over the link.
PAGEABLE_COPY_BYTES_PER_S = 6e9


def _card(tflops: float, memory_gb: float, link_gb: float) -> Rates:
    """A card by its data sheet: dense float16 products reach their peak with so many rows that
    reading the weights takes no longer; a link carries four fifths of its nominal rate, as every
    measurement of PCIe finds."""
    link = 0.8 * link_gb * 1e9
    narrow = max(1, round(tflops * 1e3 / memory_gb))
    flops = ((1, tflops * TERA / narrow), (narrow, tflops * TERA))
    return Rates(flops, memory_gb * 1e9, link, link)


A100_40GB = _card(312, 1555, 31.5)  # PCIe 4.0 x16
RTX_4090 = _card(165, 1008, 31.5)  # PCIe 4.0 x16
