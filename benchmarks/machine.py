"""The machine under the measurement: which cores there are, how much memory is held, what runs.

Knows Linux's `/proc`; where a number or a pin is not to be had, it says so or does without.
"""

import contextlib
import ctypes
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = ("aiohttp", "pydantic", "ernie-async")

MANY = 16_000
"""Descriptors for 10,000 open streams and whatever else there is."""


def pick_cores() -> tuple[int | None, int | None]:
    """A core to measure on and another for the load server; `None` where there is no choice."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[-1], cores[0]) if len(cores) > 1 else (None, None)


def pin(core: int | None) -> None:
    """Keep this process on one core, or anywhere if `None`."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def limit_memory(most: int) -> None:
    """Have this process fail rather than take more bytes than this."""
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def allow_descriptors(wanted: int) -> None:
    """Let this process and its children open so many files and sockets, or as many as they may."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def own_bytes() -> int:
    """Resident bytes of its own: files that it has mapped come and go as the kernel likes."""
    return _status("RssAnon")


class _MallocInfo(ctypes.Structure):
    """`struct mallinfo2` of malloc.h, glibc 2.33 and newer."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def malloc_bytes() -> int:
    """What C's malloc has handed out: no free pages, and none of Python's arenas; else 0.

    Python asks malloc for pieces over 512 bytes only; `sys.getallocatedblocks` counts the others.
    """
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None) if os.name == "posix" else None
    if ask is None:
        return 0
    ask.restype = _MallocInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


def reset_peak() -> None:
    """Let the kernel's high-water mark of this process start again from what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this kernel does not say {name} of a process")


def cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def library_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """Which code of ours runs, as git names it; marked if it was changed since."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        folder = Path(__file__).parent
        return subprocess.check_output(
            command, cwd=folder, text=True, stderr=subprocess.DEVNULL
        ).strip()
    return "unknown"


def describe() -> dict[str, str]:
    """What to print above the table, in order."""
    return {
        "commit": commit(),
        "cpu": f"{os.cpu_count()} x {cpu_model()}",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: library_version(name) for name in LIBRARIES},
    }
