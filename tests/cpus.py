"""Kernels of OpenBLAS and instruction sets of OpenVINO that this CPU can execute."""

from pathlib import Path

FLAGS = next((line.split() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), [])

# OpenBLAS' kernel: the flag of the CPU that it needs, and the instruction set of OpenVINO, largest first.
KERNELS = {
    "SkylakeX": ("avx512dq", "AVX512_CORE"),
    "Haswell": ("avx2", "AVX2"),
    "Zen": ("avx2", "AVX2"),
}


def required(kernel: str) -> bool:
    """Return whether this CPU can execute a kernel."""
    return KERNELS[kernel][0] in FLAGS


def environment(kernel: str) -> dict[str, str]:
    """Return the variables that select a kernel, and the same instruction set in OpenVINO's two code generators."""
    isa = KERNELS[kernel][1]
    return {"OPENBLAS_CORETYPE": kernel, "ONEDNN_MAX_CPU_ISA": isa, "OV_CPU_MAX_ISA": isa}
