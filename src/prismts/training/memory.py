"""Keep memory that a training step will need again in the next one.

PyTorch has no caching allocator on the CPU: every large tensor of every step is mapped by the C library, its pages are
faulted in, and it is unmapped again, which can take as long as the arithmetic. Told to keep its pages, glibc serves the
next step from the last one's memory. Measured (docs/log.md): 1.6 times as many steps a second.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

__all__ = ["keep_pages"]

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER, _AT_ONCE = 2**31 - 1, 64 * 2**20


@cache
def keep_pages() -> bool:
    """Once per process: let glibc keep freed memory instead of handing it back. Returns whether it was done.

    Only on Linux with glibc. The process then holds the most memory it ever needed until it ends; set the environment
    variable ``PRISMTS_KEEP_PAGES=0`` to leave the allocator alone. Variables of glibc's own (``MALLOC_TRIM_THRESHOLD_``
    and its like) are respected: where one is set, nothing is done.
    """
    if os.environ.get("PRISMTS_KEEP_PAGES") == "0" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _AT_ONCE))
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)
