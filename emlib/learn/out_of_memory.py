"""How running out of memory is recognised: processors and libraries say it in different ways."""

from __future__ import annotations

import torch

from emlib.errors import UserError

# what the CPU's allocator and cuBLAS raise has no class of its own
_MESSAGES = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class OutOfMemory(UserError):
    """Memory ran out during a prediction; who called it may know flags that help better than those it names."""


def memory_ran_out(error: BaseException) -> bool:
    """Return whether an error says that there is no memory left.

    Examples
    --------
    >>> memory_ran_out(MemoryError()), memory_ran_out(RuntimeError("shape mismatch"))
    (True, False)
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError, OutOfMemory)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)
