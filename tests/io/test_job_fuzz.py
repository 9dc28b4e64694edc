"""Nothing a person can write makes loading fail in any other way than with a JobError."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tightrun.io.job import Job, JobError, job_schema, load_job, origins, print_config

_PARTS = [job_schema(), *job_schema()["$defs"].values()]
NAMES = sorted({name for part in _PARTS for name in part["properties"]})

words = st.sampled_from([*NAMES, "auto", "none", "all", "-", "a.jsonl", "x/", "90%", "24GiB", "3h"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | words
    | st.binary(max_size=3)
    | st.just(10**4000)
)
keys = st.sampled_from(NAMES) | st.text(max_size=5) | st.integers() | st.none() | st.booleans()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def half_right() -> st.SearchStrategy[dict[Any, Any]]:
    """Mappings with the right sections and anything in them."""
    sections = {
        title: st.dictionaries(st.sampled_from(sorted(part["properties"])), values, max_size=4)
        for title, part in job_schema()["$defs"].items()
    }
    return st.fixed_dictionaries(
        {},
        optional={
            "model": sections["ModelSpec"] | scalars,
            "input": sections["InputSpec"],
            "sampling": sections["SamplingSpec"],
            "output": sections["OutputSpec"],
            "limits": sections["LimitsSpec"],
            "hardware": sections["Machine"] | scalars,
            "policy": sections["PolicySpec"] | scalars,
            "on_overflow": values,
        },
    )


def load_or_refuse(source: Any, *overrides: str) -> Job | None:
    with suppress(JobError):
        return load_job(source, overrides=overrides, env={"HOME": "/home/x", "N": "1"})
    return None


@given(st.dictionaries(keys, values, max_size=6) | half_right())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mapping_is_a_job_or_a_job_error(source: dict[Any, Any]) -> None:
    load_or_refuse(source)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(["sampling", "limits", "policy", "hardware", "on_overflow"], values),
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_job_that_loads_can_be_printed(changes: dict[str, Any]) -> None:
    smallest = {"model": "o/n", "input": {"path": "x"}, "output": {"path": "o"}}
    job = load_or_refuse({**smallest, **changes}) or load_job(smallest)
    assert load_job(job.resolved()).resolved() == job.resolved()
    assert len(print_config(job).splitlines()) >= len(origins(job))


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(NAMES) | st.text(max_size=3), max_size=4), st.text()
        ).map(lambda pair: ".".join(pair[0]) + "=" + pair[1])
        | st.text(),
        max_size=4,
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_override_is_applied_or_a_job_error(overrides: list[str]) -> None:
    load_or_refuse({"model": "o/n", "input": {"path": ["x"]}, "output": {}}, *overrides)


STRUCTURE = st.text(alphabet="model: inputpath{}[]$&*!<>|-#'\"\n\t 0123,.%~", max_size=80)


@given(STRUCTURE | st.text(max_size=40) | st.binary(max_size=40))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_file_is_a_job_or_a_job_error(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "fuzz.yaml"
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    path.write_bytes(data)
    load_or_refuse(path)
