"""The ways to divide two memories between weights, KV and passes, as far as they may be best."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from tightrun.policies.forms import Form
from tightrun.policies.offload_memory import BUFFERS, SLOTS, STAGING_SLOTS, Division, MemorySums

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16)
BATCH_SIZES = tuple(sorted({m * 2**e for e in range(11) for m in (2, 3)} | {1}))
# Passes of fewer rows than these are only looked at where wider ones leave no room.
NARROW = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a division has to hold: sequences in all, their blocks, and what a person has set.

    `typical`, `least` and `most` are blocks of one sequence: of a mean one, of one that must find
    room, of the longest. `forced` is a recompute ratio in `form`; with `disk`, layers may
    come from there.
    """

    sequences: int
    typical: int
    least: int
    most: int
    prefill_tokens: int
    batch_size: int | None
    batches: int | None
    form: Form
    forced: float | None
    disk: bool = True

    @property
    def widths(self) -> tuple[int, ...]:
        """Prefill tokens of a pass: down by fours to NARROW, then by halves."""
        found = [self.prefill_tokens]
        while found[-1] > 1:
            found.append(found[-1] // (4 if found[-1] >= 4 * NARROW else 2))
        return tuple(found)


class Search:
    """Goes through divisions that fit. What is left of the device goes to layers, then to KV."""

    def __init__(
        self, sums: MemorySums, device_bytes: int, host_bytes: int, wanted: Wanted
    ) -> None:
        self.sums = sums
        self.device_bytes = device_bytes
        self.host_bytes = host_bytes
        self.wanted = wanted
        self._resident_bytes = list(accumulate(sums.resident_bytes, max))

    def all_resident(self, width: int) -> Iterator[Division]:
        """Divisions with all weights and all KV on the device."""
        for base in self._passes(width, (self.wanted.batches or 1,)):
            yield from self._kv_resident(base._replace(resident=self.sums.layers))

    def kv_resident(self, width: int) -> Iterator[Division]:
        """Divisions that stream weights and keep the KV on the device."""
        for base in self._passes(width, self._batches()):
            wanted = base.batches * base.batch_size * self.wanted.typical
            if self.wanted.batch_size:
                wanted = min(wanted, self._room(base) // self._blocks_bytes(1))
            kv_bytes = self._blocks_bytes(max(wanted, self.wanted.least))
            most = self._most_layers(self._room(base) - kv_bytes)
            if most is not None:
                yield from self._kv_resident(base._replace(resident=most))

    def offloaded(self, width: int) -> Iterator[Division]:
        """Divisions that keep KV in host memory, with streamed weights or without."""
        for base in self._passes(width, self._batches()):
            for rows in self._most_rows(base):
                with_room = list(self._offloaded(base._replace(most_rows=rows)))
                yield from with_room
                if with_room:
                    break

    def cannot_replay(self, d: Division) -> bool:
        """Whether batches are too narrow for the ratio of replayed tokens that is forced."""
        forced = bool(self.wanted.forced) and self.wanted.form == "tokens"
        return forced and d.workspace_blocks > 0 and d.most_rows <= d.prefill_tokens

    def _offloaded(self, base: Division) -> Iterator[Division]:
        all_layers = self.sums.layers
        whole = self._with_workspace(base._replace(resident=all_layers))
        if whole is not None and (found := self._with_resident_kv(whole)) is not None:
            yield found
        streamed = self._with_workspace(base)
        most = None if streamed is None else self._most_layers(self._room(streamed))
        if streamed is None or most is None:
            return
        for count in sorted({0, most // 2, most}):
            found = self._with_resident_kv(streamed._replace(resident=count))
            if found is not None:
                yield found

    def _passes(self, width: int, batches: tuple[int, ...]) -> Iterator[Division]:
        """Batches of every size, still without weights and KV."""
        for count in batches:
            sizes = BATCH_SIZES
            most = -(-self.wanted.sequences // count)
            sizes = (*(x for x in BATCH_SIZES if x < most), most)
            if self.wanted.batch_size:
                sizes = (self.wanted.batch_size,)
            for size in sizes:
                base = Division(0, count, size, width, max(width, size))
                if self.sums.passing_bytes(base) > self.device_bytes:
                    break
                yield base

    def _batches(self) -> tuple[int, ...]:
        if self.wanted.batches:
            return (self.wanted.batches,)
        return tuple(x for x in BATCHES if x <= max(1, self.wanted.sequences))

    def _most_rows(self, base: Division) -> Iterator[int]:
        """Rows of a batch: with room for all that a forced ratio replays, else as they are."""
        if self.wanted.forced and self.wanted.form == "tokens":
            context = self._workspace(base) * self.sums.block_tokens
            replayed = min(context, int(self.wanted.forced * context) + self.sums.block_tokens)
            yield base.most_rows + replayed
        yield base.most_rows

    def _kv_resident(self, d: Division) -> Iterator[Division]:
        sequences = d.batches * d.batch_size
        blocks = min(self._room(d) // self._blocks_bytes(1), sequences * self.wanted.most)
        asked = self.wanted.batch_size is not None
        least = self.wanted.least if asked else sequences * self.wanted.typical
        if blocks >= max(least, self.wanted.least):
            found = self._with_host(d._replace(kv_blocks=blocks))
            if found is not None:
                yield found

    def _workspace(self, d: Division) -> int:
        return max(d.batch_size * self.wanted.typical, self.wanted.least)

    def _with_workspace(self, d: Division) -> Division | None:
        """The division with a workspace for a whole batch, or for as much as fits if a batch's size
        was asked for; None where too little fits."""
        blocks = self._workspace(d)
        d = self._with_blocks(d, blocks)
        short = -self._room(d)
        if short > 0 and self.wanted.batch_size:
            each = BUFFERS * (self.sums.block_bytes + self.sums.activation_block_bytes)
            each += self.sums.copies * self.sums.block_bytes
            d = self._with_blocks(d, max(self.wanted.least, blocks - -(-short // each)))
            short = -self._room(d)
        return d if short <= 0 else None

    def _with_blocks(self, d: Division, blocks: int) -> Division:
        states = 0
        if self.wanted.form == "activations":
            forced, sequences = self.wanted.forced, d.batch_size
            states = blocks if forced is None else min(blocks, int(forced * blocks) + sequences)
        return d._replace(workspace_blocks=blocks, activation_blocks=states)

    def _with_resident_kv(self, d: Division) -> Division | None:
        """What the workspace leaves goes to resident sequences, which need no workspace."""
        sequences = d.batches * d.batch_size
        for _ in range(3):
            room = self._room(d)
            if room < 0:
                return None
            blocks = d.kv_blocks + room // self._blocks_bytes(1)
            if blocks < self.wanted.typical:
                break
            away = max(0, sequences - blocks // self.wanted.typical)
            if away == 0:
                return None  # a division with resident KV, which needs no workspace at all
            d = d._replace(kv_blocks=blocks)
            batch = -(-away // d.batches) * self.wanted.typical
            d = self._with_blocks(d, max(self.wanted.least, min(d.workspace_blocks, batch)))
        return self._with_host(d)

    def _with_host(self, d: Division) -> Division | None:
        """The division with what is not on the device in host memory, and the rest on the disk."""
        streamed = self.sums.layers - d.resident
        if self.sums.one_memory:
            if d.workspace_blocks or (streamed and not self.wanted.disk):
                return None
            return d._replace(disk=streamed)
        d = d._replace(host_blocks=d.workspace_blocks)
        short = self._host_short(d)
        if short <= 0:
            return d
        if not self.wanted.disk:
            return None
        largest = self.sums.largest
        first = -(-(short + STAGING_SLOTS * largest) // largest)
        for count in range(first, streamed + 1):
            with_disk = d._replace(disk=count)
            if self._host_short(with_disk) <= 0:
                return with_disk
        return None

    def _host_short(self, d: Division) -> int:
        return self.sums.host_bytes(d) - self.host_bytes

    def _room(self, d: Division) -> int:
        return self.device_bytes - self.sums.device_bytes(d)

    def _blocks_bytes(self, blocks: int) -> int:
        """Bytes of resident blocks, which every layer has, and of what attention copies of them."""
        return (self.sums.layers + self.sums.copies) * self.sums.block_bytes * blocks

    def _most_layers(self, room: int) -> int | None:
        """Layers that may be resident where others are streamed, None where there is no such way.

        What the slots would hold anyway is not streamed.
        """
        most = self.sums.layers - SLOTS - 1
        if room < 0 or most < 0:
            return None
        return min(most, bisect_right(self._resident_bytes, room) - 1)
