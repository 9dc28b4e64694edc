"""The C interface of the library: argument structures, field by field as in the C++ files."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from tightrun.runtime.kernels.build import KernelsUnavailableError


class OpenMp(ctypes.Structure):
    """The entry points of the OpenMP runtime that torch computes with."""

    _fields_ = (("parallel", ctypes.c_void_p), ("thread_number", ctypes.c_void_p))


class AttendArgs(ctypes.Structure):
    """Strides count elements."""

    _fields_ = (
        ("omp", OpenMp),
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "out")),
        *((name, ctypes.c_void_p) for name in ("block_table", "q_start", "q_len", "context_len")),
        ("sinks", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("q_head_stride", "q_token_stride")),
        *((name, ctypes.c_int64) for name in ("k_block_stride", "v_block_stride")),
        ("block_table_stride", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("sequences", "tokens", "q_heads", "kv_heads")),
        *((name, ctypes.c_int32) for name in ("key_width", "value_width", "blocks")),
        *((name, ctypes.c_int32) for name in ("block_tokens", "table_width", "window")),
        *((name, ctypes.c_int32) for name in ("threads", "is_bf16")),
        *((name, ctypes.c_float) for name in ("scaling", "softcap")),
    )


class WriteArgs(ctypes.Structure):
    """Strides and widths count bytes."""

    _fields_ = (
        ("omp", OpenMp),
        *((name, ctypes.c_void_p) for name in ("k", "v", "k_cache", "v_cache", "slots")),
        *((name, ctypes.c_int64) for name in ("k_head_stride", "k_token_stride")),
        *((name, ctypes.c_int64) for name in ("v_head_stride", "v_token_stride")),
        *((name, ctypes.c_int64) for name in ("k_block_stride", "v_block_stride")),
        *((name, ctypes.c_int64) for name in ("key_width", "value_width")),
        *((name, ctypes.c_int32) for name in ("tokens", "kv_heads", "blocks", "block_tokens")),
        ("threads", ctypes.c_int32),
    )


class RowsArgs(ctypes.Structure):
    """Strides count elements."""

    _fields_ = (
        ("omp", OpenMp),
        *((name, ctypes.c_void_p) for name in ("x", "y", "out")),
        *((name, ctypes.c_int64) for name in ("x_stride", "y_stride", "rows", "width")),
        *((name, ctypes.c_int32) for name in ("threads", "is_bf16")),
        ("eps", ctypes.c_float),
    )


class RotateArgs(ctypes.Structure):
    """Strides count elements."""

    _fields_ = (
        ("omp", OpenMp),
        *((name, ctypes.c_void_p) for name in ("x", "cos", "sin", "out")),
        *((name, ctypes.c_int64) for name in ("x_head_stride", "x_token_stride")),
        *((name, ctypes.c_int64) for name in ("cos_stride", "sin_stride")),
        *((name, ctypes.c_int64) for name in ("tokens", "heads", "width", "rotated")),
        *((name, ctypes.c_int32) for name in ("threads", "is_bf16")),
    )


class LinearArgs(ctypes.Structure):
    """Strides count elements."""

    _fields_ = (
        ("omp", OpenMp),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "out")),
        *((name, ctypes.c_int64) for name in ("x_stride", "weight_stride", "out_stride")),
        *((name, ctypes.c_int64) for name in ("rows", "inner", "columns")),
        ("threads", ctypes.c_int32),
    )


FUNCTIONS = {
    "tightrun_attend": AttendArgs,
    "tightrun_write_kv": WriteArgs,
    "tightrun_rms_norm": RowsArgs,
    "tightrun_silu_mul": RowsArgs,
    "tightrun_rotate": RotateArgs,
    "tightrun_linear": LinearArgs,
}


def open_library(path: Path) -> ctypes.CDLL:
    """The library with its functions' types declared; KernelsUnavailableError if it won't load."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelsUnavailableError(f"the kernels cannot be loaded: {error}") from error
    for name, args in FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes = [ctypes.POINTER(args)]
        function.restype = ctypes.c_int
    return library


def torch_openmp() -> OpenMp:
    """The OpenMP runtime torch itself is linked to, whatever its name (libgomp, libiomp5, libomp).

    All of them offer GCC's entry points. Raises KernelsUnavailableError where torch uses none.
    """
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        parallel, number = library.GOMP_parallel, library.omp_get_thread_num
    except (OSError, AttributeError) as error:
        raise KernelsUnavailableError(f"torch has no OpenMP threads to share ({error})") from error
    return OpenMp(
        ctypes.cast(parallel, ctypes.c_void_p).value, ctypes.cast(number, ctypes.c_void_p).value
    )
