"""The bits of decisions on other processors: other kernels of BLAS, vector instructions, numbers of threads.

An instruction set that this machine does not have is not taken, so that such a run is at worst a repetition; kernels of
BLAS that need one are left out, because OpenBLAS takes what it is told.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bandit import engine

_ROOT = Path(__file__).parents[2]
OURS = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES", "GLIBC_TUNABLES")


def features() -> list[str]:
    """Instruction sets that numpy found beyond those it was built for, the least first."""
    config = np.show_config(mode="dicts")
    return list(config["SIMD Extensions"].get("found", [])) if config else []


_KERNELS = {"Haswell": {"X86_V3", "AVX2"}, "Zen": {"X86_V3", "AVX2"}, "SkylakeX": {"X86_V4", "AVX512_SKX"}}
"""Instruction sets of which kernels of BLAS need one, as versions of numpy call them."""

_VARIANTS = {
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"},
    "Prescott": {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "1"},
    "SkylakeX": {"OPENBLAS_CORETYPE": "SkylakeX", "OPENBLAS_NUM_THREADS": "2"},
    "Zen": {"OPENBLAS_CORETYPE": "Zen", "OPENBLAS_NUM_THREADS": "1"},
    "no vectors": {"NPY_DISABLE_CPU_FEATURES": ",".join(features())},
    "shorter vectors": {"NPY_DISABLE_CPU_FEATURES": ",".join(features()[1:])},
    "a C library without fused steps": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2,-AVX2_Usable,-FMA_Usable"},
}

VARIANTS = {name: told for name, told in _VARIANTS.items() if name not in _KERNELS or _KERNELS[name] & set(features())}


def run(settings: dict[str, str]) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in OURS}
    found = subprocess.run(
        [sys.executable, "-m", "tests.bandit.processors"],
        cwd=_ROOT,
        env={**plain, **settings, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(found.stdout))


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return run({})


@pytest.mark.parametrize("name", VARIANTS)
def test_decisions_have_the_same_bits_on_every_processor(here: dict[str, str], name: str) -> None:
    """Scores and propensities of every policy, with open decisions, other stages and several rows, one by one and
    together: posteriors are computed anew in each process. Sites of 1,300 rows: of a million rows one may differ, so
    that this fails for no reason on one processor in a thousand at most.
    """
    there = run(VARIANTS[name])
    assert len(here) > 80
    assert {label for label in here if there[label] != here[label]} == set()


def test_only_what_is_exact_or_of_our_own_is_on_the_path_of_a_decision() -> None:
    """Library functions that differ between processors are not called where a decision is made or recomputed."""
    core = Path(engine.__file__).parent
    allowed = {
        "assumed_density.py",
        "library.py",
        "features.py",
        "drift.py",
        "eligible_share.py",
        "release.py",
    }  # sites and alarms are recorded; x is; a check
    for file in sorted(core.rglob("*.py")):
        if file.name not in allowed:
            text = file.read_text()
            for name in (
                "np.linalg",
                "scipy.linalg",
                "lapack",
                "einsum",
                "special.",
                "np.exp(",
                "np.log(",
                "expm1",
                "log1p",
                "hypot",
                "math.exp",
                "math.log(",
                "math.pow",
            ):
                assert name not in text, f"{file.name} calls {name}"


def test_the_arithmetic_of_the_libraries_is_for_sites_alone() -> None:
    """Functions that call `library`: those that make sites, and the scale that only they ask for."""
    core, calls, asks = Path(engine.__file__).parent, set[str](), set[str]()
    for file in core.rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                names = {one.id for one in ast.walk(function) if isinstance(one, ast.Name)}
                attributes = {one.attr for one in ast.walk(function) if isinstance(one, ast.Attribute)}
                calls |= {function.name} if "library" in names else set()
                asks |= {function.name} if "recorded_scale" in names | attributes else set()
    assert calls == {"sites", "recorded_scale", "log_evidence"}  # the last one is a part of the second
    assert asks == {"sites"}
