"""The token prefix shared by a whole job: prefilled once, held once, begun with by everyone."""

from __future__ import annotations

from collections.abc import Sequence as Tokens

import numpy as np

from tightrun.core import Request
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.sequence import Sequence

# Below this many tokens the bookkeeping costs more than the prefill it saves.
SHORTEST = 16


def longest_common_prefix(a: Tokens[int], b: Tokens[int]) -> int:
    """How many tokens two lists have in common from the start."""
    size = min(len(a), len(b))
    different = np.flatnonzero(np.asarray(a[:size]) != np.asarray(b[:size]))
    return int(different[0]) if different.size else size


class SharedPrefix:
    """Finds the prefix among the first sequences and keeps its KV for the later ones.

    `holder` is a sequence that never finishes. A later sequence may share less of it than the
    whole: keys and values of the first m tokens depend on those m tokens only.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self.holder = Sequence(Request(-1, "shared prefix", ""), 0, [], 0, 0)
        self._source: Sequence | None = None

    @property
    def pending(self) -> bool:
        """Whether the prefix is known but its first holder has not computed it yet."""
        return self._source is not None

    def find(self, first: Tokens[Sequence]) -> int:
        """Take the longest prefix common to the first sequences; returns its length in tokens.

        An earlier run's prefix is let go.
        """
        self.drop()
        self._source = None
        if len(first) < 2 or len({s.rope_side for s in first}) > 1:
            return 0
        length = min(longest_common_prefix(first[0].tokens, other.tokens) for other in first[1:])
        # Somebody has to compute a token of his own to have logits.
        length = min(length, *(len(s.tokens) - 1 for s in first))
        if length < SHORTEST:
            return 0
        self.holder.tokens = first[0].tokens[:length]
        self.holder.rope_side = first[0].rope_side
        self._source = first[0]
        return length

    def computed(self, sequence: Sequence) -> None:
        """Told of every sequence that got on: keep the prefix of the first that has it whole."""
        length = len(self.holder.tokens)
        if sequence is not self._source or sequence.computed < length:
            return
        self._source = None
        if sequence.offloaded or self._cache.free_places < 1 or self._cache.pool.free < 1:
            return
        self._cache.open(self.holder)
        self._cache.adopt(self.holder, sequence, length)

    def common(self, sequence: Sequence) -> int:
        """How many tokens the sequence may begin with: 0 until the prefix is computed."""
        if self.holder.place < 0 or sequence.rope_side != self.holder.rope_side:
            return 0
        length = longest_common_prefix(self.holder.tokens, sequence.tokens)
        return length if length >= SHORTEST else 0

    def drop(self) -> None:
        """Give the prefix's blocks back."""
        if self.holder.place >= 0:
            self._cache.close(self.holder)
