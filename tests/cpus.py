"""Kernels of OpenBLAS and instruction sets of OpenVINO, and those that this CPU can execute."""

from pathlib import Path

KERNELS = {  # OpenBLAS' kernel: the flag of the CPU that it needs, and the instruction set of OpenVINO
    "SkylakeX": ("avx512dq", "AVX512_CORE"),
    "Haswell": ("avx2", "AVX2"),
    "Zen": ("avx2", "AVX2"),
}


def usable_kernels() -> list[str]:
    """Return the kernels that this CPU can execute; none if it is not an x86-64 CPU with AVX2 on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return [kernel for kernel, (flag, _) in KERNELS.items() if flag in flags]


def environment(kernel: str) -> dict[str, str]:
    """Return the variables that select a kernel, and the same instruction set in OpenVINO's two code generators."""
    isa = KERNELS[kernel][1]
    return {"OPENBLAS_CORETYPE": kernel, "ONEDNN_MAX_CPU_ISA": isa, "OV_CPU_MAX_ISA": isa}
