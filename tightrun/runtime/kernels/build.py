"""Compiles the kernels beside this file into a cache folder, once per source and CPU."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

COMPILERS = ("g++", "clang++", "c++")
# -ffast-math is left out: masks are infinities here, and a NaN that was read must come out again.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-w",
)
# The first set the compiler accepts: some know only one name for "this CPU", some neither.
CpuFlags = tuple[tuple[str, ...], ...]
CPU_FLAGS: CpuFlags = (("-march=native",), ("-mcpu=native",), ())
TIMEOUT_S = 300
DIGEST_BYTES = hashlib.sha256().digest_size


class KernelsUnavailableError(RuntimeError):
    """The kernels cannot be used on this machine; the message says why."""


def find_compiler(preferred: str | None = None) -> str:
    """Path of a C++ compiler: `preferred` (what $CXX says) if given, else one on the PATH.

    Raises KernelsUnavailableError where there is none.
    """
    for name in (preferred,) if preferred else COMPILERS:
        if path := shutil.which(name):
            return path
    looked = preferred or ", ".join(COMPILERS)
    raise KernelsUnavailableError(f"no C++ compiler found (looked for {looked})")


def sources() -> tuple[Path, ...]:
    """The files the library is made of, headers included, in a fixed order."""
    here = Path(__file__).parent
    return tuple(sorted(p for p in here.iterdir() if p.suffix in {".cpp", ".h"}))


def library_path(cache_dir: Path, compiler: str, cpu_flags: CpuFlags = CPU_FLAGS) -> Path:
    """Where the library for these sources, this compiler and this CPU lies or would lie."""
    digest = hashlib.sha256()
    for source in sources():
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    version = _run([compiler, "--version"]).stdout
    flags = (*FLAGS, *(flag for choice in cpu_flags for flag in choice))
    for part in (compiler, version, *flags, platform.machine(), _cpu_features()):
        digest.update(part.encode() + b"\0")
    return cache_dir / f"kernels-{digest.hexdigest()[:24]}.so"


def build(cache_dir: Path, compiler: str, cpu_flags: CpuFlags = CPU_FLAGS) -> Path:
    """The library's path, compiled if it is not in `cache_dir` yet (2 to 5 s).

    Several processes may do this at once: each compiles under a name of its own and renames, so a
    reader only ever sees a whole library. Of `cpu_flags` the first that compiles are taken. Raises
    KernelsUnavailableError with the compiler's words.
    """
    target = library_path(cache_dir, compiler, cpu_flags)
    try:
        if _is_whole(target):
            return target
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".build-") as folder:
            unfinished = Path(folder) / target.name
            _compile(compiler, unfinished, cpu_flags)
            _seal(unfinished)
            unfinished.replace(target)
    except OSError as error:
        raise KernelsUnavailableError(f"cannot keep the kernels in {cache_dir}: {error}") from error
    return target


def _compile(compiler: str, target: Path, cpu_flags: CpuFlags) -> None:
    units = [str(path) for path in sources() if path.suffix == ".cpp"]
    for choice in cpu_flags:
        result = _run([compiler, *FLAGS, *choice, *units, "-o", str(target)])
        if result.returncode == 0:
            return
    words = " ".join(result.stderr.split())[:300]
    raise KernelsUnavailableError(f"{compiler} could not compile the kernels: {words}")


def _seal(library: Path) -> None:
    """Appends a checksum; the loader ignores it, but a library cut short kills the process."""
    with library.open("ab") as file:
        file.write(hashlib.sha256(library.read_bytes()).digest())


def _is_whole(library: Path) -> bool:
    try:
        content = library.read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(content[:-DIGEST_BYTES]).digest() == content[-DIGEST_BYTES:]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsUnavailableError(f"{command[0]} could not be run: {error}") from error


def _cpu_features() -> str:
    """What -march=native looks at; a cache folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
