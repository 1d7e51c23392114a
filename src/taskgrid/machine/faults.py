"""Memory that ran out and devices that failed, as sentences that say what to do."""

from __future__ import annotations

import sys

_AGAIN = (
    "what is finished is kept, and the same command goes on from there; `--retries 2` tries again by "
    "itself"
)
_DEVICE = ("CUDA error", "CUDA driver error", "NVML", "cuDNN error", "HIP error")
# Of a mistake in the code, not of the device: whoever mends it needs the traceback.
_CODE = "device-side assert"
_NO_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_HOST = "DefaultCPUAllocator"


def explain_fault(error: BaseException) -> str | None:
    """Return the sentence for an error by which memory or a device failed; None for any other one."""
    text = str(error).partition("\n")[0].rstrip(".")
    if isinstance(error, MemoryError) or _HOST in text:
        return (
            f"the machine's memory ran out ({text or 'nothing more is said'}): give the job more, or run "
            f"fewer at once (--cores); {_AGAIN}"
        )
    # Whoever raises its errors has imported it.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError) or _CODE in text:
        return None
    of_device = isinstance(error, torch.AcceleratorError) or text.startswith(_DEVICE)
    if isinstance(error, torch.OutOfMemoryError) or (
        of_device and any(words in text for words in _NO_MEMORY)
    ):
        return (
            f"the device's memory ran out ({text}): set evaluation.batch_size to fewer images, see with "
            f"nvidia-smi who else is on it, take a larger one, or the CPU (device: cpu); {_AGAIN}"
        )
    if of_device:
        return (
            f"the device failed or is gone ({text}): see nvidia-smi and the kernel's log (Xid), and leave "
            f"it out by CUDA_VISIBLE_DEVICES; {_AGAIN}"
        )
    return None
