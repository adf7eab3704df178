"""The device that a stage computes on, and its threads."""

import re
import sysconfig

import pytest
import threadpoolctl
import torch

from vit_plasticity.runtime import gpu_lease
from vit_plasticity.runtime.cli import InputError, MachineError
from vit_plasticity.runtime.device import device_name, has_kernels, select_device


def test_a_device_that_is_not_there_is_refused():
    assert device_name(select_device("cpu", 1)) == "cpu"
    with pytest.raises(InputError, match="choose auto, cpu"):
        select_device("cuda:97", 1)


def test_threads_limit_the_linear_algebra_of_libraries_already_loaded():
    import scipy.linalg  # noqa: F401

    def blas():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    threadpoolctl.threadpool_limits(2)
    assert blas() == {2}
    select_device("cpu", 1)
    assert blas() == {1}


@pytest.fixture
def ungiven(monkeypatch):
    """No GPU was given to this process."""
    for name in ("CUDA_VISIBLE_DEVICES", *gpu_lease.SLURM_GPUS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.usefixtures("ungiven")
@pytest.mark.parametrize(
    ("name", "value"),
    [("CUDA_VISIBLE_DEVICES", "0"), ("CUDA_VISIBLE_DEVICES", "GPU-8f2d"), ("SLURM_JOB_GPUS", "1")],
)
def test_a_job_whose_gpu_torch_does_not_find_stops_with_its_reason(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises((RuntimeError, AssertionError)) as reason:
        torch.cuda.init()
    with pytest.raises(MachineError, match=re.escape(str(reason.value).splitlines()[0])) as error:
        select_device("auto", 1)
    assert f"{name}={value}" in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.usefixtures("ungiven")
@pytest.mark.parametrize("value", [None, "", "-1", "NoDevFiles"])
def test_a_job_without_a_gpu_computes_on_the_cpu(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        monkeypatch.setenv("SLURM_JOB_GPUS", "0")  # of the job around this step
    assert select_device("auto", 1).type == "cpu"


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((8, 6), ["sm_75", "sm_80"], True),
        ((7, 0), ["sm_75", "sm_80", "compute_90"], False),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_90a"], True),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((10, 3), ["sm_90", "sm_100"], True),
        ((12, 0), ["sm_90"], False),
    ],
)
def test_kernels_run_on_their_own_generation_and_portable_ones_on_later_ones(capability, built_for, runs):
    assert has_kernels(capability, built_for) is runs


def test_compile_without_a_compiler_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert select_device("cpu", 1).type == "cpu"
    with pytest.raises(InputError, match=r"lacks a compiler \(g\+\+ or clang\+\+\).*compile: false"):
        select_device("cpu", 1, compile=True)


def test_compile_without_the_headers_of_python_is_refused(monkeypatch, tmp_path):
    compiler = tmp_path / "c++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    with pytest.raises(InputError, match=r"lacks Python's headers \(.*include/Python.h\)"):
        select_device("cpu", 1, compile=True)
