"""Chooses what each pass computes: who starts, who gives way, which tokens go together."""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass

from tightrun.policies.admission import OutputLengths, may_start
from tightrun.policies.foresight import Sizes
from tightrun.policies.plan import Plan
from tightrun.runtime.batch import Segment
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.prefix import SharedPrefix
from tightrun.runtime.sequence import Sequence


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sequence may start, and whose first `shared` tokens it begins with."""

    lane: int
    offloaded: bool
    donor: Sequence
    shared: int


class _Rooms:
    """What the running sequences have and may still take: of the device, and of each lane."""

    def __init__(self, lanes: int) -> None:
        self.promised = 0
        self.resident = 0
        self.sequences = [0] * lanes
        self.offloaded = [0] * lanes
        self.blocks = [0] * lanes
        self.promised_off = [0] * lanes

    def enter(self, sequence: Sequence, promised: int) -> None:
        lane = sequence.lane
        self.sequences[lane] += 1
        if sequence.offloaded:
            self.offloaded[lane] += 1
            self.blocks[lane] += len(sequence.blocks) + promised
            self.promised_off[lane] += promised
        else:
            self.resident += 1
            self.promised += promised


class Scheduler:
    """Running and waiting sequences over one KV cache.

    A sequence that gives way (is preempted) keeps its tokens and loses its KV: it waits at the
    front and is computed again, so preemption changes when work happens, never what comes out.
    """

    def __init__(
        self,
        plan: Plan,
        cache: KVCache,
        prefix: SharedPrefix,
        lengths: OutputLengths | None = None,
    ) -> None:
        self.plan = plan
        self.cache = cache
        self.prefix = prefix
        self.lengths = lengths or OutputLengths()
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        # What may change while it runs, within the plan.
        self.sizes = Sizes(plan.batch_size, plan.batches, plan.prefill_tokens)
        self.prompts = 0
        self.prompt_tokens = 0
        self.shared_tokens = 0
        self.alone: Sequence | None = None
        self._most_rows: int | None = None

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def next_block(self) -> list[list[Segment]]:
        """The segments of the next pass, one list per batch. Empty only when there is no work.

        A batch is a lane of the plan: its sequences stay together until they finish. Where batches
        are held to fewer rows, a lane makes several. `alone`, if it runs, is all there is.
        """
        self._make_room_for_decoding()
        self._start()
        batches: dict[tuple[int, int], list[Segment]] = {}
        for lane in range(self.plan.batches):
            for segment in self._choose(lane):
                key = (lane, segment.sequence.rope_side)
                batches.setdefault(key, []).append(segment)
        found = [x for key in sorted(batches) for x in self._cut(batches[key])]
        only = [[s] for x in found for s in x if s.sequence is self.alone]
        return only or found

    def hold(self, rows: int) -> None:
        """Give batches at most so many rows from now on, those computed again included. A sequence
        that would have more even by itself gives way."""
        if rows >= self.plan.widest_batch:
            self._most_rows = None
            return
        self._most_rows = rows
        for sequence in reversed(self.running.copy()):
            if self._replayed(sequence) >= rows:
                self._preempt(sequence)

    def advance(self, block: list[list[Segment]]) -> None:
        """The pass is over: its tokens are computed. Call before tokens are appended."""
        for segments in block:
            for segment in segments:
                sequence = segment.sequence
                sequence.computed += segment.tokens
                sequence.settled = sequence.kept
                self.prefix.computed(sequence)
                if sequence.siblings and sequence.computed >= sequence.prompt_tokens:
                    self._release_siblings(sequence)

    def give_up_pass(self, torn: Set[int]) -> None:
        """The pass was given up on the way: nothing of it counts, and `advance` is not called.

        On the device that is all, since a pass only adds to what earlier ones computed. Off it,
        whoever has been written in another form halfway gives way, and so does all that lies in
        the host memory of a `torn` lane.
        """
        for sequence in reversed(self.running.copy()):
            if not sequence.offloaded:
                continue
            has_context = sequence.computed > sequence.shared * self.cache.block_tokens
            changing = sequence.kept != sequence.settled
            if has_context and (changing or sequence.lane in torn):
                self._preempt(sequence)

    def finish(self, sequence: Sequence) -> None:
        """The sequence is done, for better or worse: give back what it holds."""
        if sequence.siblings:
            self._release_siblings(sequence)
        self.running.remove(sequence)
        self.cache.close(sequence)
        self.lengths.learn(sequence.output_tokens, sequence.room)
        if self.lengths.stale:
            self.lengths.draw((s.output_tokens, s.room) for s in self.running)

    def drop(self, sequence: Sequence) -> None:
        """The sequence is given up, running or waiting."""
        if sequence.siblings:
            self._release_siblings(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
            self.cache.close(sequence)
        else:
            self.waiting.remove(sequence)

    def abandon(self) -> None:
        """The run is over: what is unfinished gives back what it holds."""
        for sequence in self.running:
            self.cache.close(sequence)
        self.running.clear()
        self.waiting.clear()

    def begun(self) -> list[Sequence]:
        """Who has started and not finished; may be called from any thread."""
        return [*self.running, *self.waiting]

    def expected_tokens(self) -> int:
        """Output tokens still expected from what runs and waits here."""
        remaining = self.lengths.remaining
        return round(
            sum(remaining(s.room, s.output_tokens) for s in (*self.running, *self.waiting))
        )

    def _release_siblings(self, donor: Sequence) -> None:
        for sibling in reversed(donor.siblings):
            sibling.donor = donor
            self.waiting.appendleft(sibling)
        donor.siblings = []

    def _make_room_for_decoding(self) -> None:
        """Grow every decoding sequence by its next token; the latest starters give way."""
        for sequence in list(self.running):
            if sequence.place < 0:
                continue
            while not self.cache.can_grow(sequence, len(sequence.tokens)):
                self._preempt(self._latest(sequence))
                if sequence.place < 0:
                    break
            else:
                self.cache.grow(sequence, len(sequence.tokens))

    def _latest(self, sequence: Sequence) -> Sequence:
        """Who started last of those that hold the same kind of memory."""
        return next(
            s
            for s in reversed(self.running)
            if s.offloaded == sequence.offloaded and (not s.offloaded or s.lane == sequence.lane)
        )

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.cache.close(sequence)
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _start(self) -> None:
        """Start waiting sequences in order while there are places and memory for them."""
        rooms = self._rooms()
        while self.waiting and len(self.running) < self.sizes.sequences:
            if self.running and self.prefix.pending:
                return  # everyone else begins with what the first one computes now
            sequence = self.waiting[0]
            place = self._place(sequence, rooms)
            if place is None:
                return
            donor, shared = place.donor, place.shared
            if not self.running and not place.offloaded:
                held = shared // self.cache.block_tokens
                if self.cache.blocks_for(len(sequence.tokens)) - held > self.cache.pool.free:
                    # Only the shared prefix can hold blocks while nothing runs.
                    self.prefix.drop()
                    shared = 0
            self.waiting.popleft()
            self.cache.open(sequence, lane=place.lane, offloaded=place.offloaded)
            sequence.donor = None
            if shared:
                self.cache.adopt(sequence, donor, shared)
            if sequence.output_tokens == 0 and sequence.sample == 0 and not sequence.started:
                self.prompts += 1
                self.prompt_tokens += sequence.prompt_tokens
                self.shared_tokens += sequence.computed
            sequence.started = True
            self.cache.grow(sequence, len(sequence.tokens))
            self.running.append(sequence)
            rooms.enter(sequence, self._promised(sequence))

    def _rooms(self) -> _Rooms:
        rooms = _Rooms(self.plan.batches)
        for sequence in self.running:
            rooms.enter(sequence, self._promised(sequence))
        return rooms

    def _place(self, sequence: Sequence, rooms: _Rooms) -> _Place | None:
        """Where the sequence may start now: on the device before off it; None if nowhere."""
        donor, shared = self._donor(sequence)
        wanted = self.cache.blocks_for(min(self._expected(sequence), sequence.most_tokens))
        now = self.cache.blocks_for(len(sequence.tokens))
        open_lanes = [
            x for x in range(self.sizes.batches) if rooms.sequences[x] < self.sizes.batch_size
        ]
        if not open_lanes:
            return None
        held = shared // self.cache.block_tokens
        if self.cache.resident and may_start(
            self.cache.pool.free, rooms.promised, wanted - held, rooms.resident
        ):
            fits = now - held <= self.cache.pool.free or not self.running
            if fits and not self._never_fits(sequence):
                lane = min(open_lanes, key=lambda x: (rooms.sequences[x], x))
                return _Place(lane, False, donor, shared)
        if not self.cache.rooms.workspace:
            return None
        if donor.offloaded:
            shared = 0
        lane = min(open_lanes, key=lambda x: (rooms.blocks[x], rooms.sequences[x], x))
        held = shared // self.cache.block_tokens
        pool = self.cache.lanes[lane]
        # A lane whose sequences are held in a recompute form has host memory for further ones.
        free = min(pool.free, pool.free_stored)
        if now - held > free:
            return None
        if not may_start(free, rooms.promised_off[lane], wanted - held, rooms.offloaded[lane]):
            return None
        return _Place(lane, True, donor, shared)

    def _never_fits(self, sequence: Sequence) -> bool:
        """Whether the device's blocks could not hold the sequence, but a workspace could."""
        blocks = self.cache.blocks_for(sequence.most_tokens)
        return blocks > self.cache.resident and self.cache.rooms.workspace > 0

    def _donor(self, sequence: Sequence) -> tuple[Sequence, int]:
        """Who has computed the most of how it begins, and how many tokens it may take over."""
        donor, most = sequence.donor, len(sequence.tokens) - 1
        resident = donor is not None and donor.place >= 0 and not donor.offloaded
        if donor is not None and resident and donor.rope_side == sequence.rope_side:
            return donor, min(sequence.prompt_tokens, donor.computed, most)
        return self.prefix.holder, min(self.prefix.common(sequence), most)

    def _expected(self, sequence: Sequence) -> int:
        written = sequence.output_tokens
        expected = self.lengths.expected(sequence.room, written)
        return sequence.prompt_tokens + max(written + 1, expected)

    def _promised(self, sequence: Sequence) -> int:
        """Blocks a running sequence is still expected to take."""
        wanted = min(self._expected(sequence), sequence.most_tokens)
        return max(0, self.cache.blocks_for(wanted) - len(sequence.blocks))

    def _replayed(self, sequence: Sequence) -> int:
        """Tokens of a sequence that its batch computes again in every pass."""
        size = self.cache.block_tokens
        held = min(sequence.computed, sequence.kept.states_from * size)
        return max(0, held - sequence.shared * size) if sequence.offloaded else 0

    def _choose(self, lane: int) -> list[Segment]:
        """Every decoding sequence's token, then prefill chunks up to the budget of a batch."""
        mine = [s for s in self.running if s.lane == lane]
        decoding = [Segment(s, 1) for s in mine if s.uncomputed == 1]
        left = self.sizes.prefill_tokens
        if self.plan.most_rows:
            left = min(left, self.plan.most_rows - sum(map(self._replayed, mine)))
        left = max(1, left - len(decoding))
        prefill = []
        for sequence in mine:
            if sequence.uncomputed > 1 and left > 0:
                tokens = min(left, sequence.uncomputed)
                if self._most_rows is not None:
                    tokens = min(tokens, max(1, self._most_rows - self._replayed(sequence)))
                prefill.append(Segment(sequence, tokens))
                left -= tokens
        return decoding + prefill

    def _cut(self, segments: list[Segment]) -> list[list[Segment]]:
        """The segments in batches of as many rows as are allowed, one segment at least."""
        if self._most_rows is None:
            return [segments]
        batches: list[list[Segment]] = []
        room = 0
        for segment in segments:
            rows = segment.tokens + self._replayed(segment.sequence)
            if rows > room:
                batches.append([])
                room = self._most_rows
            batches[-1].append(segment)
            room -= rows
        return batches
