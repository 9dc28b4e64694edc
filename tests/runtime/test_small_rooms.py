"""How little memory suffices, that no byte more is taken than planned, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.parity.families import RUN
from tests.parity.offloaded import MIB
from tests.parity.tiny_models import Oracle, as_text, ragged_prompts, save_tiny
from tests.policies.machines import case_of
from tests.runtime.engines import answers, ask
from tightrun.policies.hardware import Budget, Hardware
from tightrun.policies.offload_memory import WeightSizes
from tightrun.policies.offload_plan import plan_offloaded
from tightrun.policies.plan import DoesNotFitError, Plan, Workload
from tightrun.runtime.engine import Engine
from tightrun.runtime.loaded_model import LoadedModel
from tightrun.runtime.loading import load
from tightrun.runtime.memory import OutOfMemoryError
from tightrun.runtime.options import EngineOptions, Machine

KIB = 2**10


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    folder = save_tiny(tmp_path_factory.mktemp("model") / "llama", *RUN["llama"])
    return Oracle(folder, ragged_prompts(6, shared=20, longest=40))


def options(oracle: Oracle, words: Path, gpu_memory: int, **others: Any) -> EngineOptions:
    cpu_memory = others.pop("cpu_memory", 64 * MIB)
    return EngineOptions(
        str(oracle.folder),
        tokenizer=str(words),
        dtype="float32",
        machine=Machine("emulated", gpu_memory, cpu_memory, h2d=2e9, d2h=2e9, disk_read=2e9),
        gpu_memory=gpu_memory,
        cpu_memory=cpu_memory,
        poison=True,
        rows=len(oracle.prompts),
        **others,
    )


def loaded(oracle: Oracle, words: Path, gpu_memory: int, **others: Any) -> LoadedModel:
    return load(options(oracle, words, gpu_memory, **others), lambda _: None)


def sizes_of(model: LoadedModel) -> WeightSizes:
    skeleton = model.skeleton
    assert skeleton is not None
    layers = range(len(skeleton.layers))
    return WeightSizes(tuple(skeleton.slab_bytes(i) for i in layers), skeleton.outer_bytes)


def smallest(model: LoadedModel, host: int = 64 * MIB) -> tuple[int, Plan]:
    """The least device memory there is a plan for, and the plan."""

    def planned(nbytes: int) -> Plan | None:
        try:
            memories = Budget(nbytes, "hardware.gpu_memory"), Budget(host, "hardware.cpu_memory")
            hardware = Hardware("emulated", *memories, cores=2)
            weights = sizes_of(model)
            return plan_offloaded(
                case_of(model.shape, hardware, model.rates, Workload(6), weights=weights)
            )
        except DoesNotFitError:
            return None

    low, high = 0, 8 * MIB
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if planned(middle) else (middle, high)
    found = planned(high)
    assert found is not None
    return high, found


def test_two_slots_the_outer_weights_and_64_kib_beside_the_kv_suffice(
    oracle: Oracle, word_tokenizer: Path
) -> None:
    model = loaded(oracle, word_tokenizer, 8 * MIB)
    model.close()
    sizes = sizes_of(model)
    least, plan = smallest(model)
    assert plan.prefill_tokens == 1
    assert least <= sizes.outer + 2 * sizes.largest + plan.arenas["kv"] + 64 * KIB


def said(asked: EngineOptions, prompts: list[list[int]]) -> dict[int, str]:
    """What an engine with those options writes, and that it stays within its plan."""
    engine = Engine(asked, load(asked, lambda _: None))
    try:
        got = answers(engine, [ask(i, as_text(p), max_tokens=4) for i, p in enumerate(prompts)])
    finally:
        engine.close()
    return {row: completion.samples[0].text for row, completion in got.items()}


def test_the_smallest_room_says_the_same_a_token_at_a_time(
    oracle: Oracle, word_tokenizer: Path
) -> None:
    model = loaded(oracle, word_tokenizer, 8 * MIB)
    model.close()
    least, _ = smallest(model)
    prompts = [p[:20] for p in oracle.prompts[:3]]
    small = said(options(oracle, word_tokenizer, least), prompts)
    assert small == said(options(oracle, word_tokenizer, 8 * MIB), prompts)


# Device memory, what is asked for, and the arenas that come of it beside the outer weights.
ROOMS: dict[str, tuple[int, dict[str, Any], set[str]]] = {
    "all on the device": (8 * MIB, {}, {"weights", "kv"}),
    "weights streamed": (560 * KIB, {"context": 128, "batch_size": 2}, {"slots", "kv"}),
    "weights and KV streamed": (
        440 * KIB,
        {"context": 128, "batch_size": 1},
        {"slots", "kv", "write-back"},
    ),
    "with activations": (
        850 * KIB,
        {"recompute": 0.5, "recompute_form": "activations", "batches": 3},
        {"slots", "kv", "write-back", "activations"},
    ),
}
# What a plan calls an arena, and the ledger. The other arenas of a plan are torch's own memory.
NAMES = {"outer": "outer", "resident": "weights", "slots": "slots", "kv": "kv"} | {
    "activations": "activations",
    "staging": "write-back",
}


@pytest.mark.parametrize("room", ROOMS)
def test_the_ledger_holds_what_was_planned_to_the_byte(
    room: str, oracle: Oracle, word_tokenizer: Path
) -> None:
    nbytes, others, arenas = ROOMS[room]
    asked = options(oracle, word_tokenizer, nbytes, **others)
    model = load(asked, lambda _: None)
    engine = Engine(asked, model)
    try:
        answers(engine, [ask(i, as_text(p), max_tokens=3) for i, p in enumerate(oracle.prompts)])
        memory = model.accelerator.memory
        planned = {NAMES[x]: size for x, size in model.plan.arenas.items() if x in NAMES}
        assert {x: size for x, size in memory.arenas.items() if size} == planned
        assert set(planned) == arenas | {"outer"}
        assert memory.used == sum(planned.values())
        passing = model.plan.arenas["workspace"] + model.plan.arenas["logits"]
        assert memory.used < memory.peak <= memory.used + passing
        host = model.accelerator.host_memory
        assert host.used == sum(x for n, x in model.plan.host_arenas.items() if n != "beside")
    finally:
        engine.close()


def test_a_byte_more_than_the_device_has_is_refused(oracle: Oracle, word_tokenizer: Path) -> None:
    asked = options(oracle, word_tokenizer, 700 * KIB)
    model = load(asked, lambda _: None)
    try:
        memory, arenas = model.accelerator.memory, model.plan.arenas
        memory.budget = memory.used + arenas["kv"] + arenas["staging"] - 1
        with pytest.raises(OutOfMemoryError, match="are all there is"):
            Engine(asked, model)
        model.accelerator.empty(memory.free, "rest")
        with pytest.raises(OutOfMemoryError):
            model.accelerator.empty(1, "rest")
    finally:
        model.close()


def test_a_layer_larger_than_half_the_device_is_refused_with_the_sum(
    oracle: Oracle, word_tokenizer: Path
) -> None:
    with pytest.raises(DoesNotFitError) as refused:
        loaded(oracle, word_tokenizer, 240 * KIB)
    message = str(refused.value)
    assert "slots 248 KiB" in message
    assert "hardware.gpu_memory allows 240 KiB" in message
    assert "A layer must fit 2 times" in message


def test_a_host_that_holds_not_even_the_kv_is_refused_with_the_sum(
    oracle: Oracle, word_tokenizer: Path
) -> None:
    with pytest.raises(DoesNotFitError, match=r"kv .* KiB .* hardware.cpu_memory allows"):
        loaded(oracle, word_tokenizer, 640 * KIB, cpu_memory=300 * KIB)


def test_layers_the_host_has_no_room_for_need_the_disk_to_be_allowed(
    oracle: Oracle, word_tokenizer: Path
) -> None:
    host = 700 * KIB  # the KV of a sequence and two staging slots
    with pytest.raises(DoesNotFitError, match=r"Allow the disk \(limits\.disk\)"):
        loaded(oracle, word_tokenizer, 700 * KIB, cpu_memory=host, disk=0)
