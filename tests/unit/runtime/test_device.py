"""The device that a stage computes on, and its threads."""

import pytest
import threadpoolctl

from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import device_name, select_device


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
