"""The job file as pydantic models, one per section.

Every description is what an editor shows through the JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from tightrun.core import SamplingParams
from tightrun.io import job_checks
from tightrun.io.job_types import (
    AS_COUNT,
    AutoCount,
    AutoShare,
    Columns,
    DiskAmount,
    DiskSize,
    Duration,
    FailureLimit,
    Flag,
    FlopRate,
    HardwareName,
    InputPaths,
    MemoryAmount,
    MemorySize,
    ModelPath,
    Number,
    Numbers,
    OutputPath,
    Rate,
    Text,
    Texts,
    Word,
)
from tightrun.io.quantities import Amount, Tolerance

NAME_TAG, MACHINE_TAG = "<name>", "<machine>"
SHORTHANDS = {"model": "path", "policy": "name"}
"""Sections that one text may stand for, and the key it then is."""

_INT64 = 2**63


class Section(BaseModel):
    """A mapping of the job file: fixed once read, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(Section):
    """The model to run."""

    path: ModelPath = Field(description="Local folder, or a name on the Hugging Face hub.")
    revision: Word | None = Field(default=None, description="Branch, tag or commit on the hub.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Number format of weights and computation; auto: the checkpoint's own.",
    )
    tokenizer: ModelPath | None = Field(
        default=None,
        description="Folder or hub name of the tokenizer, when it is not the model's own.",
    )
    trust_remote_code: Flag = Field(
        default=False, description="Whether Python code that comes with the model may run."
    )


class InputSpec(Section):
    """Where the rows come from and how a row becomes a prompt."""

    path: InputPaths = Field(
        default=(),
        description="File, folder, glob or URL, or a list of them; - is JSON lines on standard "
        "input. Parquet, JSON lines (also .gz, .zst).",
    )
    dataset: ModelPath | None = Field(
        default=None, description="Hugging Face dataset (folder or hub name), instead of path."
    )
    name: Word | None = Field(default=None, description="Configuration of the dataset.")
    split: Word | None = Field(default=None, description="Split of the dataset, such as train.")
    revision: Word | None = Field(default=None, description="Branch, tag or commit of the dataset.")
    format: Literal["auto", "parquet", "jsonl", "openai-batch"] = Field(
        default="auto", description="Format of the files; auto: from their names and first lines."
    )
    prompt: Word | None = Field(default=None, description="Column that holds the prompt text.")
    messages: Word | None = Field(
        default=None, description="Column that holds the messages of a chat."
    )
    template: Word | None = Field(
        default=None,
        description="Jinja template of the prompt over the columns, as in {{ question }}.",
    )
    system: Text | None = Field(
        default=None, description="System prompt of every row; the model must have a chat template."
    )
    chat: Literal["auto", True, False] = Field(
        default="auto", description="Whether a text prompt is put into the model's chat template."
    )
    id: Word | None = Field(
        default=None,
        description="Column with the row's id; default: custom_id, id, uid, else file#row.",
    )

    @model_validator(mode="after")
    def _agrees(self) -> InputSpec:
        job_checks.refuse(job_checks.input_problems(self))
        return self


class SamplingSpec(Section):
    """How tokens are drawn; the names and meanings of OpenAI and vLLM."""

    max_tokens: Annotated[int, Field(ge=1), AS_COUNT] = Field(
        default=256, description="Tokens to generate at most."
    )
    temperature: Annotated[Number, Field(ge=0)] = Field(
        default=0.0, description="0 always takes the most likely token."
    )
    top_p: Annotated[Number, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Keep the likeliest tokens that make up this probability; 1 is off.",
    )
    top_k: Annotated[int, Field(ge=0), AS_COUNT] = Field(
        default=0, description="Keep this many of the likeliest tokens; 0 is off."
    )
    min_p: Annotated[Number, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Keep tokens at least this share as likely as the likeliest; 0 is off.",
    )
    repetition_penalty: Annotated[Number, Field(gt=0)] = Field(
        default=1.0,
        description="Above 1: tokens of prompt and output become less likely; 1 is off.",
    )
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] = Field(
        default=0.0, description="Taken off a token's logit once it is in the output."
    )
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] = Field(
        default=0.0, description="Taken off a token's logit for each time it is in the output."
    )
    stop: Texts = Field(default=(), description="Text, or list of texts, that end the output.")
    stop_token_ids: Numbers = Field(default=(), description="Token ids that end the output.")
    seed: Annotated[int, Field(ge=-_INT64, lt=_INT64), AS_COUNT] = Field(
        default=0, description="Same seed and row, same text, whatever runs beside it."
    )
    n: Annotated[int, Field(ge=1), AS_COUNT] = Field(default=1, description="Samples per row.")
    logprobs: Annotated[int, Field(ge=0, le=20), AS_COUNT] = Field(
        default=0, description="Alternatives to report per token, up to 20; 0 reports nothing."
    )
    min_tokens: Annotated[int, Field(ge=0), AS_COUNT] = Field(
        default=0, description="Tokens to generate before the output may end."
    )
    ignore_eos: Flag = Field(default=False, description="Go on past the end-of-sequence token.")

    @model_validator(mode="after")
    def _agrees(self) -> SamplingSpec:
        job_checks.refuse(job_checks.sampling_problems(self))
        return self

    def params(self) -> SamplingParams:
        """The same as the engine takes it; `logprobs: 0` becomes None, nothing reported."""
        return SamplingParams(**{**dict(self), "logprobs": self.logprobs or None})


class OutputSpec(Section):
    """Where the rows go."""

    path: OutputPath = Field(
        description="Folder for shards and report; for JSON lines also a single .jsonl file."
    )
    format: Literal["parquet", "jsonl", "openai-batch"] = Field(
        default="parquet", description="Format of the output."
    )
    keep_columns: Columns = Field(
        default="all", description="Input columns to keep beside the output: all, none or a list."
    )
    shard_rows: Annotated[int, Field(ge=1), AS_COUNT] = Field(
        default=10_000, description="Rows per output file."
    )

    @model_validator(mode="after")
    def _agrees(self) -> OutputSpec:
        job_checks.refuse(job_checks.output_problems(self))
        return self


class LimitsSpec(Section):
    """What may be used, and when to give up."""

    gpu_memory: MemoryAmount = Field(
        default=Amount(share=0.9), description="GPU memory: a share of what is free, or a size."
    )
    cpu_memory: MemoryAmount = Field(
        default=Amount(share=0.8),
        description="Host memory: a share of what may be used, or a size.",
    )
    disk: DiskAmount = Field(
        default=None, description="Disk for what fits neither memory: a share, a size, 0, or auto."
    )
    context: AutoCount = Field(
        default=None,
        description="Tokens of prompt and output together at most; auto: the model's own.",
    )
    time: Duration = Field(
        default=None,
        description="Stop and save after this time, such as 3h or 1h30m; none: no limit.",
    )
    max_failed: FailureLimit = Field(
        default=Tolerance(share=0.05),
        description="Stop when more rows fail: a share, a number, or none.",
    )


class Machine(Section):
    """A machine to plan for, or to emulate. What is left out is measured or the host's own."""

    device: Literal["emulated", "cuda", "cpu"] = Field(
        description="emulated: the CPU computes behind links and memory of the given sizes."
    )
    gpu_memory: MemorySize = Field(default=None, description="Device memory, such as 400MiB.")
    cpu_memory: MemorySize = Field(default=None, description="Host memory.")
    disk: DiskSize = Field(
        default=None, description="Disk space for weights and KV cache; 0 for none."
    )
    h2d: Rate = Field(default=None, description="Host to device, such as 25GB/s.")
    d2h: Rate = Field(default=None, description="Device to host.")
    disk_read: Rate = Field(default=None, description="Disk to host.")
    disk_write: Rate = Field(default=None, description="Host to disk.")
    latency_us: Annotated[Number, Field(ge=0)] | None = Field(
        default=None, description="Microseconds before a transfer moves its first byte."
    )
    host_bandwidth: Rate = Field(default=None, description="Bandwidth of the host's memory.")
    device_bandwidth: Rate = Field(default=None, description="Bandwidth of the device's memory.")
    flops: dict[Annotated[int, Field(ge=1), AS_COUNT], FlopRate] = Field(
        default_factory=dict,
        description="Rate of matrix products by number of rows, as in {64: 30TFLOP/s}.",
    )

    @model_validator(mode="after")
    def _agrees(self) -> Machine:
        job_checks.refuse(job_checks.machine_problems(self))
        return self


class PolicySpec(Section):
    """How work is scheduled. What is auto is chosen by the plan."""

    name: Literal["adaptive", "static", "sync"] = Field(
        default="adaptive",
        description="adaptive: decided before every pass; static, sync: to compare.",
    )
    recompute: AutoShare = Field(
        default=None,
        description="Share of the context off the device to recompute, 0 to 1, or auto.",
    )
    recompute_form: Literal["auto", "tokens", "activations"] = Field(
        default="auto", description="What is recomputed from."
    )
    batch_size: AutoCount = Field(default=None, description="Sequences per batch.")
    batches: AutoCount = Field(default=None, description="Batches per block.")


def _hardware_tag(value: Any) -> str:
    return MACHINE_TAG if isinstance(value, dict | Machine) else NAME_TAG


Hardware = Annotated[
    Annotated[HardwareName, Tag(NAME_TAG)] | Annotated[Machine, Tag(MACHINE_TAG)],
    Discriminator(_hardware_tag),
    BeforeValidator(lambda value: "auto" if value is None else value),
]
