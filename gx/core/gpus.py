"""GPUs that may be rented, by Modal's names, and how fast they are taken to be until it was measured.

A decode waits for the memory: what a machine writes a second goes with its bandwidth.
"""

from __future__ import annotations

LAPTOP_GB_PER_S = 50.0
"""Two channels of DDR4-3200."""
GPU_GB_PER_S = {
    "T4": 320.0,
    "L4": 300.0,
    "A10": 600.0,
    "L40S": 864.0,
    "A100-40GB": 1555.0,
    "A100-80GB": 1935.0,
    "RTX-PRO-6000": 1597.0,
    "H100": 3350.0,
    "H200": 4800.0,
    "B200": 8000.0,
}
"""Of NVIDIA's data sheets."""


def times_a_laptop(gpu: str) -> float:
    """How many times as fast as a laptop a container with that GPU is taken to be."""
    return max(1.0, GPU_GB_PER_S.get(gpu, LAPTOP_GB_PER_S) / LAPTOP_GB_PER_S)
