"""Requests in, sequences out: tokenising beside the loop, bounded in bytes."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from tightrun.core import Completion, Request
from tightrun.runtime.going_on import go_on, prompt_check
from tightrun.runtime.rope_sides import RopeSides
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.tokenizer import PromptError, Tokenizer

MOST_TOKENS_WAITING = 2**21
MOST_SEQUENCES_WAITING = 4096
PATIENCE_S = 1.0


class Feed:
    """A thread that turns requests into sequences ahead of the loop.

    `context` is the most tokens of a sequence, `vocab` how many tokens the model knows, `ends` are
    its end tokens. A prompt that cannot be run goes to `deliver` as a completion with an error, a
    sample that an earlier run has finished as it is. An exception of the requests' iterator is
    raised again from `take`.
    """

    def __init__(
        self,
        requests: Iterable[Request],
        tokenizer: Tokenizer,
        context: int,
        vocab: int,
        sides: RopeSides,
        *,
        ends: frozenset[int],
        truncate: bool,
        deliver: Callable[[Completion | Sequence], None],
        stop: threading.Event,
    ) -> None:
        self._requests = requests
        self._tokenizer = tokenizer
        self._context = context
        self._vocab = vocab
        self._sides = sides
        self._ends = ends
        self._truncate = truncate
        self._deliver = deliver
        self._stop = stop
        self._ready: deque[Sequence] = deque()
        self._tokens = 0
        self._changed = threading.Condition()
        self._over = False
        self._stop_reading = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="encode", daemon=True)
        self._thread.start()

    @property
    def _stopped(self) -> bool:
        return self._stop_reading or self._stop.is_set()

    def take(self, most: int, *, wait: bool) -> list[Sequence]:
        """Up to `most` sequences; with `wait`, at least one unless the requests are over."""
        with self._changed:
            while wait and not self._ready and not self._over and not self._stopped:
                self._changed.wait(0.1)
            if self._error is not None:
                raise self._error
            taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
            self._tokens -= sum(s.prompt_tokens for s in taken)
            self._changed.notify_all()
            return taken

    def wait_for(self, count: int) -> None:
        """Return once `count` sequences are ready, the requests are over, or come no more.

        Whoever reads them may have to wait for rows to finish before he reads on.
        """
        with self._changed:
            before = 0
            while len(self._ready) < count and not self._over and not self._stopped:
                if self._ready and len(self._ready) == before:
                    return
                before = len(self._ready)
                self._changed.wait(PATIENCE_S)

    def peek(self, count: int) -> list[Sequence]:
        with self._changed:
            return [self._ready[i] for i in range(min(count, len(self._ready)))]

    @property
    def over(self) -> bool:
        """Whether every request has been taken."""
        with self._changed:
            return self._over and not self._ready

    @property
    def waiting(self) -> int:
        return len(self._ready)

    @property
    def waiting_rooms(self) -> list[int]:
        """The most output tokens of each sequence that waits here."""
        with self._changed:
            return [s.room * s.sampling.n for s in self._ready]

    def close(self) -> None:
        """Let the thread end; it may still wait for its next request."""
        with self._changed:
            self._stop_reading = True
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            for request in self._requests:
                if self._stopped:
                    break
                self._put(self._encode(request))
        except BaseException as error:  # handed to the loop's thread, which raises it
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _encode(self, request: Request) -> Sequence | None:
        try:
            tokens = self._fit(self._tokenizer.encode(request), request)
        except PromptError as problem:
            self._deliver(
                Completion(
                    request.row_index,
                    request.id,
                    seed=request.sampling.seed,
                    attempt=request.attempt,
                    error=problem.error,
                )
            )
            return None
        room = min(request.sampling.max_tokens, self._context - len(tokens))
        side = self._sides.side(len(tokens) + room)
        written = {part.sample: part for part in request.written}
        request = replace(request, prompt="", written=())  # the text is not needed any more
        prompt = array("i", tokens)
        check = prompt_check(prompt)
        unfinished = []
        for i in range(request.sampling.n):
            sequence = Sequence(request, i, prompt[:], len(prompt), room, side, prompt_check=check)
            if i in written:
                go_on(sequence, written[i], self._ends, self._tokenizer)
            if sequence.finish_reason is None:
                unfinished.append(sequence)
            else:
                self._deliver(sequence)
        if not unfinished:
            return None
        first, *others = unfinished
        first.siblings = others
        return first

    def _fit(self, tokens: list[int], request: Request) -> list[int]:
        if max(tokens) >= self._vocab:
            raise PromptError(
                "unsupported",
                f"the prompt has the token {max(tokens):,}, and the model knows {self._vocab:,}: "
                "the tokenizer is not this model's",
            )
        if len(tokens) < self._context:
            return tokens
        if not self._truncate:
            raise PromptError(
                "context_length",
                f"the prompt has {len(tokens):,} tokens, and with one token of output it must fit "
                f"{self._context:,}; shorten it, raise limits.context or the memory limits, or "
                "set on_overflow: truncate_left",
            )
        keep = max(self._context - request.sampling.max_tokens, self._context // 2)
        return tokens[-keep:]

    def _put(self, sequence: Sequence | None) -> None:
        if sequence is None:
            return
        with self._changed:
            while not self._stopped and (
                self._tokens > MOST_TOKENS_WAITING or len(self._ready) >= MOST_SEQUENCES_WAITING
            ):
                self._changed.wait(0.1)
            self._ready.append(sequence)
            self._tokens += sequence.prompt_tokens
            self._changed.notify_all()
