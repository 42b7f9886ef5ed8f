"""The runtime is tuned once, says what it did, and every lever can be switched off."""

import json
import os
import subprocess
import sys

import pytest

from naica import runtime

REPORT = """
import json, os, sys
{before}
from naica.runtime import tune
first = tune()
assert tune() is first
import torch
precision = getattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision", None)
print(json.dumps({{"matmul": first.matmul, "error": str(first.matmul_error), "malloc": first.malloc, "waiting": first.waiting,
    "precision": precision, "policy": os.environ.get("OMP_WAIT_POLICY"), "spin": os.environ.get("GOMP_SPINCOUNT")}}))
"""


def report(before: str = "", **environment: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NAICA_", "OMP_WAIT", "GOMP"))}
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(before=before)], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_default():
    tuned = report()
    assert tuned["waiting"] == "on"
    assert (tuned["policy"], tuned["spin"]) == ("PASSIVE", "0")
    assert tuned["matmul"] == "on" or tuned["matmul"].startswith("off: ")
    if tuned["matmul"] == "on":
        assert tuned["precision"] == "bf16"
        assert float(tuned["error"]) < 1e-6


def test_levers_off_torch_loaded_before_and_a_users_policy():
    plain = report(before="import torch", NAICA_FAST_MATMUL="0", NAICA_MALLOC="0", OMP_WAIT_POLICY="ACTIVE")
    assert plain["matmul"] == "off: NAICA_FAST_MATMUL=0"
    assert plain["malloc"] == "off: NAICA_MALLOC=0"
    assert plain["precision"] != "bf16"
    assert plain["waiting"] == "off: torch was loaded before naica"
    assert plain["policy"] == "ACTIVE"


def test_passive_waiting_off_and_on(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("NAICA_PASSIVE_WAIT", "0")
    assert runtime._passive_waiting() == "off: NAICA_PASSIVE_WAIT=0"
    monkeypatch.delenv("NAICA_PASSIVE_WAIT")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert runtime._passive_waiting() == "on"
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("ACTIVE", "0")


def test_inexact_products_bring_the_default_backend_back(monkeypatch):
    import torch

    switch = getattr(torch.backends.mkldnn, "matmul", None)
    if switch is None or not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no such switch")
    before = switch.fp32_precision
    seen = []

    def bad_error() -> float:
        seen.append(switch.fp32_precision)
        return 1e-3

    monkeypatch.setattr(runtime, "matmul_error", bad_error)
    monkeypatch.delenv("NAICA_FAST_MATMUL", raising=False)
    said, error = runtime._fast_matmul()
    assert seen == ["bf16"]
    assert said.startswith("off: self-test error 1.0e-03")
    assert error == 1e-3
    assert switch.fp32_precision == before


def test_self_test_sees_low_precision(monkeypatch):
    import torch

    exact = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: exact(a.bfloat16(), b.bfloat16()).float())
    assert runtime.matmul_error() > 1e-4


def test_threads_are_set_and_told():
    before = runtime.threads()
    assert runtime.threads(1) == 1
    runtime.threads(before)
