from __future__ import annotations

import subprocess
import sys

import pytest

ROUNDS = """
import resource
import torch
from ppo_cli.accelerate import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        tensors = [torch.ones(1 << 20) for _ in range(8)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's C library")
def test_memory_that_tensors_free_is_there_for_the_next_ones() -> None:
    printed = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True, check=True).stdout
    before, after = map(int, printed.split())
    assert after < before / 20, "page faults"
