"""The kernels, compiled once for all tests; without a compiler the tests skip and say why."""

import pytest

from tightrun.runtime.kernels.build import KernelsUnavailableError, find_compiler
from tightrun.runtime.kernels.cpu import CpuKernels


@pytest.fixture(scope="session")
def compiler():
    try:
        return find_compiler()
    except KernelsUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kernels(compiler, tmp_path_factory):
    reasons: list[str] = []
    loaded = CpuKernels.load(tmp_path_factory.mktemp("kernels"), reasons.append, compiler)
    assert loaded is not None, reasons
    return loaded
