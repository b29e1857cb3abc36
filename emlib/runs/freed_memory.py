"""Large blocks of memory kept by the process for the next arrays and tensors."""

from __future__ import annotations

import ctypes
import platform


def keep_freed_memory() -> bool:
    """Let the C library keep memory that arrays gave back, for the next ones; True where it can (glibc of Linux).

    A network, and a stage over blocks, ask for the same large arrays again and again. glibc returns each to the system,
    which fills it with zeros anew, page by page: up to half of the time. In exchange the peak grows by up to a
    third. Settings as in ``man mallopt``.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_max = -1, -4
    return bool(libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, 2**31 - 1))
