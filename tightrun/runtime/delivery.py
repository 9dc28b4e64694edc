"""Finished sequences out: text and completions, made beside the loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from tightrun.core import Completion, Sample, TokenLogprob
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.tokenizer import Tokenizer


class Delivery:
    """A thread that decodes finished sequences and hands whole completions to `finish`.

    An exception of `finish` is raised again from `put` or `close`.
    """

    def __init__(self, tokenizer: Tokenizer, finish: Callable[[Completion], None]) -> None:
        self._tokenizer = tokenizer
        self._finish = finish
        self._queue: queue.Queue[Sequence | Completion | None] = queue.Queue(maxsize=4096)
        self._parts: dict[int, list[Sequence]] = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="deliver", daemon=True)
        self._thread.start()

    def put(self, item: Sequence | Completion) -> None:
        """Take a finished sequence, or a completion that needs no text."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def begun(self) -> list[Sequence]:
        """The finished samples of rows that wait for another one; from any thread."""
        return [sequence for parts in list(self._parts.values()) for sequence in list(parts)]

    def close(self) -> None:
        """Return once everything put has been handed on."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue
            try:
                self._hand_on(item)
            except BaseException as error:  # raised again in the loop's thread
                self._error = error

    def _hand_on(self, item: Sequence | Completion) -> None:
        if isinstance(item, Completion):
            self._finish(item)
            return
        request = item.request
        parts = self._parts.setdefault(request.row_index, [])
        parts.append(item)
        if len(parts) < request.sampling.n:
            return
        del self._parts[request.row_index]
        failed = next((s for s in parts if s.error is not None), None)
        samples = () if failed else tuple(map(self._sample, sorted(parts, key=lambda s: s.sample)))
        self._finish(
            Completion(
                row_index=request.row_index,
                id=request.id,
                samples=samples,
                prompt_tokens=item.prompt_tokens,
                seed=request.sampling.seed,
                attempt=request.attempt,
                error=failed.error if failed else None,
            )
        )

    def _sample(self, sequence: Sequence) -> Sample:
        text = sequence.text
        if text is None:
            text = self._tokenizer.decode(self._spoken(sequence))
        logprobs = None
        if sequence.logprobs is not None:
            logprobs = tuple(
                TokenLogprob(
                    x.token_id,
                    self._tokenizer.token_text(x.token_id),
                    x.logprob,
                    tuple((t, self._tokenizer.token_text(t), p) for t, _, p in x.top),
                )
                for x in sequence.logprobs
            )
        assert sequence.finish_reason in ("stop", "length")
        return Sample(
            text=text,
            finish_reason=sequence.finish_reason,  # type: ignore[arg-type]
            stop_reason=sequence.stop_reason,
            completion_tokens=sequence.output_tokens,
            logprobs=logprobs,
        )

    def _spoken(self, sequence: Sequence) -> list[int]:
        """The output without the token that ended it, be that special to the tokenizer or not."""
        output = sequence.output
        return output[:-1] if sequence.finish_reason == "stop" else output
