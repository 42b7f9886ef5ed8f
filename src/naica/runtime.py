"""The numerical runtime, tuned once and in one place, on first use of torch.

Three levers, each measured to cost nothing and each with its own switch (set the variable to 0 before the first import):

``NAICA_FAST_MATMUL``  f32 matrix products through oneDNN, which on processors without AMX computes in full f32 at about twice the
    rate of the default backend. The same switch lowers the precision on other processors, so it stays only if a product agrees
    with f64 to 1e-6; otherwise the default backend comes back.
``NAICA_MALLOC``  glibc keeps big temporaries instead of returning each to the kernel (saves millions of page faults).
``NAICA_PASSIVE_WAIT``  OpenMP threads sleep while they wait; spinning costs a factor 10 on cores shared with other work.
    It acts only if torch has not been loaded yet.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from dataclasses import dataclass

_MATMUL_ERROR = 1e-6
# numbers of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_state: list[Tuning] = []


@dataclass(frozen=True)
class Tuning:
    """What `tune` did: `matmul` and `malloc` say yes or why not, `matmul_error` is the self-test's relative error."""

    matmul: str
    matmul_error: float
    malloc: str
    waiting: str


def _switched_off(name: str) -> bool:
    return os.environ.get(name, "1").strip().lower() in {"0", "false", "no", "off"}


def tune() -> Tuning:
    """Tune the runtime; the first call does the work, later calls return what it did."""
    if not _state:
        waiting = _passive_waiting()
        malloc = _keep_memory()
        matmul, error = _fast_matmul()
        _state.append(Tuning(matmul, error, malloc, waiting))
    return _state[0]


def threads(number: int | None = None) -> int:
    """Set the number of threads torch uses inside one operation (if given) and return it."""
    tune()
    import torch

    if number is not None:
        torch.set_num_threads(max(1, int(number)))
    return torch.get_num_threads()


def _passive_waiting() -> str:
    if _switched_off("NAICA_PASSIVE_WAIT"):
        return "off: NAICA_PASSIVE_WAIT=0"
    if "torch" in sys.modules:
        return "off: torch was loaded before naica"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    return "on"


def _keep_memory() -> str:
    if _switched_off("NAICA_MALLOC"):
        return "off: NAICA_MALLOC=0"
    if platform.libc_ver()[0] != "glibc":
        return "off: not glibc"
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError) as error:
        return f"off: {error}"
    wanted = ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_TOP_PAD, 1 << 26))
    return "on" if all(mallopt(key, value) == 1 for key, value in wanted) else "off: mallopt refused"


def matmul_error() -> float:
    """Largest error of f32 products against f64, relative to the largest entry, over shapes that graph networks use."""
    import torch

    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for m, k, n in ((512, 256, 128), (1024, 41, 128), (64, 64, 64)):
        a = torch.randn(m, k, generator=generator)
        b = torch.randn(k, n, generator=generator)
        exact = a.double() @ b.double()
        for product in (a @ b, torch.addmm(torch.zeros(n), a, b), torch.bmm(a[None], b[None])[0]):
            worst = max(worst, float((product.double() - exact).abs().max() / exact.abs().max()))
    return worst


def _fast_matmul() -> tuple[str, float]:
    import torch

    if _switched_off("NAICA_FAST_MATMUL"):
        return "off: NAICA_FAST_MATMUL=0", float("nan")
    if not torch.backends.mkldnn.is_available():
        return "off: this torch has no oneDNN", float("nan")
    # set for oneDNN alone: torch.set_float32_matmul_precision would lower the precision on GPUs as well
    switch = getattr(torch.backends.mkldnn, "matmul", None)
    if switch is None or not hasattr(switch, "fp32_precision"):
        return "off: this torch has no switch for it", float("nan")
    before = switch.fp32_precision
    switch.fp32_precision = "bf16"
    error = matmul_error()
    if error < _MATMUL_ERROR:
        return "on", error
    switch.fp32_precision = before
    return f"off: self-test error {error:.1e} is above {_MATMUL_ERROR:.0e}", error
