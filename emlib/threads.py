"""How many cores a run may use: one process-wide setting, as in ``torch.set_num_threads``."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

_threads: int | None = None


def set_threads(count: int | None) -> None:
    """Set the number of threads for this process; ``None`` means all cores."""
    global _threads
    if count is not None and count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    _threads = count


def get_threads() -> int:
    """Return the number of threads in force."""
    if _threads is not None:
        return _threads
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        return os.cpu_count() or 1


def map_threads(function: Callable, items: Iterable) -> list:
    """Return ``[function(item) for item in items]``, computed on ``get_threads()`` threads.

    Pays where ``function`` releases the GIL (NumPy, SciPy, FFTs); the order of results is the order of items.
    """
    count = get_threads()
    if count == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, items))
