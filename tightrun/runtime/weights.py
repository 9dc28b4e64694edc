"""The weight loader: the loop asks it before each stage, and offers it room behind each batch."""

from __future__ import annotations

from tightrun.runtime.batch import Batch


class ResidentWeights:
    """Every layer is on the device already: nothing to wait for, nothing to send."""

    def wait(self, stage: int) -> None:
        """Return once the weights of the stage may be used."""

    def send_slice(self, behind: Batch) -> None:
        """Use the time the batch computes to send a slice of the next streamed layer."""
