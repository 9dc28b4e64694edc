"""The JSON Schema of the job file, for editors."""

from __future__ import annotations

from typing import Any

from tightrun.io.job_model import Job
from tightrun.io.job_sections import (
    InputSpec,
    LimitsSpec,
    Machine,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    SamplingSpec,
    Section,
)
from tightrun.io.places import KeyPath

SECTIONS: dict[KeyPath, type[Section]] = {
    (): Job,
    ("model",): ModelSpec,
    ("input",): InputSpec,
    ("sampling",): SamplingSpec,
    ("output",): OutputSpec,
    ("limits",): LimitsSpec,
    ("hardware",): Machine,
    ("policy",): PolicySpec,
}
"""The model of every section, by the path it stands at."""


def job_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) with description, default and accepted units of every key."""
    schema = Job.model_json_schema(mode="validation")
    for section in SECTIONS.values():
        part = schema if section is Job else schema["$defs"][section.__name__]
        defaults = _defaults(section)
        for key, rules in part["properties"].items():
            rules.pop("title", None)
            rules.pop("default", None)
            if defaults.get(key) is not None:
                rules["default"] = defaults[key]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "tightrun job",
        "description": "One large offline LLM job.",
    }


def _defaults(section: type[Section]) -> dict[str, Any]:
    """The simple defaults as a job file would spell them: `90%`, not an object."""
    fields = section.model_fields.items()
    values = {
        key: field.default
        for key, field in fields
        if not field.is_required() and field.default_factory is None and field.default != ()
    }
    return section.model_construct(**values).model_dump(mode="json", include=set(values))
