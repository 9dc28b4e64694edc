"""From a loaded model to the parts that take its passes: cache, scheduler, stages, and what drives
them."""

from __future__ import annotations

from dataclasses import dataclass

from tightrun.policies.admission import OutputLengths
from tightrun.policies.kv import Distributor
from tightrun.runtime.context_links import ContextLinks
from tightrun.runtime.context_split import ContextSplit
from tightrun.runtime.kernel_choice import is_token_major
from tightrun.runtime.kv_cache import KVCache, Rooms
from tightrun.runtime.loaded_model import LoadedModel
from tightrun.runtime.loop import LOOPS
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.pass_plan import PassPlanner
from tightrun.runtime.pass_run import PassRunner
from tightrun.runtime.prefix import SharedPrefix
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.stages import Stages


@dataclass(frozen=True, slots=True)
class Parts:
    """What an engine is made of; `links` is None where no context is off the device."""

    cache: KVCache
    scheduler: Scheduler
    links: ContextLinks | None
    stages: Stages
    distributor: Distributor
    runner: PassRunner


def assemble(options: EngineOptions, loaded: LoadedModel, lengths: OutputLengths) -> Parts:
    """Make the parts by the model's plan. Raises OutOfMemoryError if an arena finds no room."""
    plan = loaded.plan
    cache = _cache(options, loaded)
    scheduler = Scheduler(plan, cache, SharedPrefix(cache), lengths)
    projection = loaded.projection if plan.activation_blocks else None
    links = (
        ContextLinks(
            loaded.accelerator,
            cache,
            plan.staging_rows,
            0 if projection is None else projection.width,
            poison=options.poison,
        )
        if plan.workspace_blocks
        else None
    )
    stages = Stages(
        loaded.cut,
        loaded.shape,
        loaded.accelerator,
        loaded.kernel,
        links,
        projection,
        most_rows=plan.most_rows,
    )
    distributor = loaded.distributor()
    planner = PassPlanner(
        loaded.shape,
        cache,
        distributor,
        ContextSplit(cache, distributor.form, plan.most_rows),
        loaded.rope_sides,
        loaded.device,
        loaded.weight_traffic,
        plan.staging_rows,
    )
    runner = PassRunner(LOOPS[options.policy], scheduler, planner, stages, loaded.weights)
    return Parts(cache, scheduler, links, stages, distributor, runner)


def _cache(options: EngineOptions, loaded: LoadedModel) -> KVCache:
    plan = loaded.plan
    return KVCache(
        loaded.shape,
        plan.kv_blocks,
        plan.block_tokens,
        plan.sequences + 1,  # one more place for the shared prefix
        plan.context,
        loaded.dtype,
        loaded.device,
        token_major=is_token_major(loaded.kernel),
        poison=options.poison,
        rooms=Rooms(
            plan.batches,
            plan.workspace_blocks,
            plan.host_blocks,
            plan.activation_blocks,
            plan.buffers,
        ),
        memory=loaded.accelerator if loaded.skeleton is not None else None,
    )
