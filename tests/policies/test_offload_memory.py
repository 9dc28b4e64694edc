"""Where layers lie, and what each way to divide the memories takes."""

from __future__ import annotations

import pytest

from tightrun.policies.offload_memory import even_residents


@pytest.mark.parametrize(("layers", "streamed"), [(61, 61), (61, 30), (61, 3), (7, 5), (4, 0)])
def test_resident_layers_lie_evenly_between_streamed_ones(layers: int, streamed: int) -> None:
    resident = even_residents(layers, streamed)
    assert len(resident) == layers - streamed
    moving = [i for i in range(layers) if i not in set(resident)]
    gaps = (
        [b - a for a, b in zip(moving, [*moving[1:], layers + moving[0]], strict=True)]
        if moving
        else []
    )
    assert not gaps or max(gaps) - min(gaps) <= 1
