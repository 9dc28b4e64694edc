"""Trains the dates model on two processor cores and saves it where the sample job looks for it.

    python -m sample_jobs.training.train_dates

The model learns only the answer's bytes. Batches hold rows of one length, so nothing is padded;
they begin with bare dates and grow into sentences. Hidden matrices learn with Muon (K. Jordan,
2024), the rest with AdamW. The state is saved every few minutes; the same command goes on from it.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from sample_jobs.training.byte_tokenizer import BOS, EOS, LONGEST, PAD, VOCABULARY, byte_tokenizer
from sample_jobs.training.dates_data import SUFFIX, Row, training_row

MODEL_FOLDER = Path(__file__).parents[1] / "dates" / "model"
ANSWER_TOKENS = len("1997-03-03") + 1
# The share of the run in which bare dates give way to sentences, and their share at the end.
CURRICULUM, BARE_AT_END = 0.25, 0.3
WARM_UP, COOL_DOWN = 0.02, 0.55
STORE_EVERY = 100
MUON_RATE, ADAM_RATE = 0.012, 0.003


def build_model() -> LlamaForCausalLM:
    """An untrained byte-level Llama of 1.2 million parameters, float32."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LONGEST,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        tie_word_embeddings=False,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    # On a processor the backward pass of fused attention is slower than plain matrix products.
    model.set_attn_implementation("eager")
    return model


def encode(row: Row) -> list[int]:
    """Prompt, answer and end of sequence as one list of token ids."""
    return [BOS, *f"{row.sentence}{SUFFIX}".encode(), *row.expected.encode(), EOS]


def batches(steps: int, batch_size: int, seed: int, first: int = 0) -> Iterator[Tensor]:
    """Token ids [batch_size, tokens] for steps `first` to `steps`, all rows of one length."""
    rng = random.Random(seed + first)
    waiting: dict[int, list[list[int]]] = defaultdict(list)
    step = first
    while step < steps:
        grown = min(1.0, step / (CURRICULUM * steps))
        tokens = encode(training_row(rng, bare=1 - grown * (1 - BARE_AT_END)))
        rows = waiting[len(tokens)]
        rows.append(tokens)
        if len(rows) == batch_size:
            yield torch.tensor(waiting.pop(len(tokens)))
            step += 1


def rate_at(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: a short rise, a plateau, a fall to zero.

    The fall is steep at first and slow at the end (Hägele et al. 2024, section 3).
    """
    done = step / steps
    if done < WARM_UP:
        return (step + 1) / (WARM_UP * steps + 1)
    if done < 1 - COOL_DOWN:
        return 1.0
    return 1 - math.sqrt((done - 1 + COOL_DOWN) / COOL_DOWN)


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, head and norms."""
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in inside}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    found: list[torch.optim.Optimizer] = [
        torch.optim.Muon(inside, lr=MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return found


def answer_loss(model: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss over the answer's tokens, and the share of rows whose answer is all right."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens[:, :-1], logits_to_keep=ANSWER_TOKENS, use_cache=False).logits
    answer = tokens[:, -ANSWER_TOKENS:]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), answer.flatten())
    return loss, (logits.argmax(-1) == answer).all(-1).float().mean()


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Writes weights, configs and tokenizer; AutoModel and AutoTokenizer load the folder."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


class Training:
    """A model that is learning: its optimizers, the steps done and the seconds they took."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = build_model()
        self.optimizers = optimizers(self.model)
        self.steps_done = 0
        self.seconds = 0.0

    def restore(self, file: Path) -> None:
        """Goes back to what `store` wrote."""
        state = torch.load(file)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps_done, self.seconds = state["steps_done"], state["seconds"]

    def store(self, file: Path) -> None:
        """Writes everything to a file that is either the old one or the new one, whole."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps_done": self.steps_done,
            "seconds": self.seconds,
        }
        partial = file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(file)

    def learn(self, tokens: Tensor, rate: float) -> tuple[float, float]:
        """One step on a batch; returns its loss and its share of right answers."""
        started = time.monotonic()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate
        loss, exact = answer_loss(self.model, tokens)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.steps_done += 1
        self.seconds += time.monotonic() - started
        return loss.item(), exact.item()


def train(steps: int, batch_size: int, seed: int, out: Path, state_file: Path) -> None:
    """Trains for `steps` and saves to `out`; goes on from `state_file` where there is one."""
    training = Training(seed)
    if state_file.exists():
        training.restore(state_file)
    first = training.steps_done
    print(f"{training.model.num_parameters():,} parameters, steps {first} to {steps}", flush=True)
    right = 0.0
    for step, tokens in enumerate(batches(steps, batch_size, seed, first), start=first):
        loss, exact = training.learn(tokens, rate_at(step, steps))
        right += (exact - right) / min(step - first + 1, 50)
        if (step + 1) % 50 == 0:
            line = f"step {step + 1}  {training.seconds:6.0f} s  loss {loss:.4f}  exact {right:.3f}"
            print(line, flush=True)
        if (step + 1) % STORE_EVERY == 0 or step + 1 == steps:
            training.store(state_file)
    save(training.model, out)
    print(f"saved to {out} after {training.seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--state", type=Path, default=Path("train_dates.pt"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    train(chosen.steps, chosen.batch_size, chosen.seed, chosen.out, chosen.state)


if __name__ == "__main__":
    main()
