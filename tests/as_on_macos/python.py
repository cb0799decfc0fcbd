"""Python as it is on macOS: what only Linux has is taken away, and the package is told that this is a Mac.

Taken away are names of the standard library, for everybody: libraries are written to do without. That this is a Mac is
said to modules of the package alone: others would look for what a Mac has, and Linux has not.
"""

import builtins
import fcntl
import fnmatch
import importlib
import os
import resource
import sys
import types
from importlib.machinery import PathFinder, SourceFileLoader

from tests.as_on_macos import disk

# By https://docs.python.org/3/library/os.html and the pages of the other modules: what says "Linux" beside
# "Availability", or "not macOS"; and what Apple's headers do not define.
ABSENT = {
    "os": (
        *("CLONE_*", "EFD_*", "GRND_*", "MFD_*", "O_DIRECT", "O_LARGEFILE", "O_NOATIME", "O_PATH", "O_RSYNC"),
        *("O_TMPFILE", "PIDFD_*", "POSIX_FADV_*", "P_PIDFD", "RTLD_DEEPBIND", "RWF_*", "SCHED_BATCH", "SCHED_IDLE"),
        *("SCHED_RESET_ON_FORK", "SPLICE_*", "ST_APPEND", "ST_MANDLOCK", "ST_NO*ATIME", "ST_NODEV", "ST_NODIRATIME"),
        *("ST_NOEXEC", "ST_RELATIME", "ST_SYNCHRONOUS", "ST_WRITE", "TFD_*", "XATTR_*", "copy_file_range", "eventfd*"),
        *("fdatasync", "getrandom", "getresgid", "getresuid", "getxattr", "listxattr", "memfd_create", "pidfd_open"),
        *("pipe2", "posix_fadvise", "posix_fallocate", "removexattr", "sched_get*aff*", "sched_getparam"),
        *("sched_getscheduler", "sched_rr_get_interval", "sched_set*", "setns", "setresgid", "setresuid", "setxattr"),
        *("splice", "timerfd_*", "unshare"),
    ),
    "select": ("EPOLL*", "epoll"),
    "resource": (
        *("RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RUSAGE_THREAD"),
        "prlimit",
    ),
    "fcntl": ("DN_*", "F_*LEASE", "F_*PIPE_SZ", "F_*SEALS", "F_*SIG", "F_NOTIFY", "F_SEAL_*"),
    "signal": (
        "SIGCLD",
        "SIGPOLL",
        "SIGPWR",
        "SIGRT*",
        "SIGSTKFLT",
        "pidfd_send_signal",
        "sigtimedwait",
        "sigwaitinfo",
    ),
    "socket": ("AF_ALG", "AF_CAN", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "SOCK_CLOEXEC", "SOCK_NONBLOCK"),
    "mmap": ("MADV_*HUGEPAGE", "MADV_*MERGEABLE", "MADV_DO*FORK", "MADV_HWPOISON", "MADV_REMOVE", "MAP_POPULATE"),
    "time": ("CLOCK_BOOTTIME", "CLOCK_TAI", "pthread_getcpuclockid"),
}

# <sys/fcntl.h> of macOS.
_F_NOCACHE, _F_FULLFSYNC = 48, 51

# What modules of the package import in place of the real ones.
_altered = {}


class Altered(types.ModuleType):
    """A module with some names replaced; all others are read and set in the real one."""

    def __init__(self, real, **names):
        super().__init__(real.__name__)
        self.__dict__.update(names, _real=real)

    def __getattr__(self, name):
        return getattr(self.__dict__["_real"], name)

    def __setattr__(self, name, value):
        setattr(self.__dict__["_real"], name, value)


def imitate(root):
    """Make of this Python one as on macOS, and of the folder *root* a Mac's disk. Comes before all other imports."""
    for module, patterns in ABSENT.items():
        _take_away(importlib.import_module(module), patterns)
    if hasattr(os, "process_cpu_count"):  # it asks sched_getaffinity, where there was one
        os.process_cpu_count = os.cpu_count
    fcntl.F_NOCACHE, fcntl.F_FULLFSYNC, fcntl.fcntl = _F_NOCACHE, _F_FULLFSYNC, _fcntl(fcntl.fcntl)
    _altered.update(sys=Altered(sys, platform="darwin"), platform=_platform(), resource=_resource())
    sys.meta_path.insert(0, Finder)
    if "-m" in sys.orig_argv and sys.orig_argv[sys.orig_argv.index("-m") + 1].split(".")[0] == "olmocr":
        sys.modules["__main__"].__dict__["__builtins__"] = _own_builtins()
    disk.mount(root)


def _take_away(module, patterns):
    for name in list(vars(module)):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            delattr(module, name)


def _fcntl(real):
    def fcntl_as_on_macos(descriptor, command, argument=0):
        if command == _F_FULLFSYNC:
            return os.fsync(descriptor) or 0
        return 0 if command == _F_NOCACHE else real(descriptor, command, argument)

    return fcntl_as_on_macos


def _platform():
    import platform

    return Altered(
        platform,
        system=lambda: "Darwin",
        machine=lambda: "arm64",
        mac_ver=lambda: ("15.0", ("", "", ""), "arm64"),
        platform=lambda aliased=False, terse=False: "macOS-15.0" if terse else "macOS-15.0-arm64-arm-64bit",
    )


def _resource():
    """Count the most memory in bytes, and let a limit of the address space be set that bounds nothing."""

    def getrusage(who):
        told = resource.getrusage(who)
        return resource.struct_rusage((*told[:2], told.ru_maxrss * 1024, *told[3:]))

    def setrlimit(kind, limits):
        if kind != resource.RLIMIT_AS:
            resource.setrlimit(kind, limits)

    return Altered(resource, getrusage=getrusage, setrlimit=setrlimit)


class Finder:
    """Finds the package's modules as always, and has them import what is altered."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] != "olmocr":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


class Loader(SourceFileLoader):
    """Runs a module with an ``import`` of its own."""

    def exec_module(self, module):
        module.__dict__["__builtins__"] = _own_builtins()
        super().exec_module(module)


def _own_builtins():
    return vars(builtins) | {"__import__": _import}


def _import(name, *others, **settings):
    if name == "mlx.core":
        _open_fast_blas()
    module = builtins.__import__(name, *others, **settings)
    return _altered.get(name, module)


def _open_fast_blas():
    """Have MLX's build for Linux compute as fast as elsewhere: a Mac has Accelerate, which is not looked for."""
    from olmocr.runtime import device

    device._load_fast_blas()
