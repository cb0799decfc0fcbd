"""The machine: processor, memory, disk, ports. Each question has an answer on Linux and on macOS, or None."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from olmocr.runtime.memory import physical_memory

_SECONDS = 1.0  # for a system program to answer


def chip() -> str:
    """Return the processor's name for itself."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    named = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return named[1] if named else platform.machine()


def runs_translated() -> bool:
    """Return whether this Python was built for Intel and runs on an Apple chip: MLX cannot be installed for it."""
    return sys.platform == "darwin" and _output("sysctl", "-in", "sysctl.proc_translated") == "1"


def total_memory() -> int:
    """Return bytes of memory: the machine's, or what a container may use of it."""
    total = physical_memory()
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(total, int(limit)) if limit.isdigit() else total


def available_memory() -> int | None:
    """Return the bytes that a new process can have before anything is swapped out; None if that is not known."""
    if sys.platform == "darwin":
        return available_on_a_mac(_output("vm_stat"))
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    return min(int(found[1]) * 1024, total_memory()) if found else None


def available_on_a_mac(vm_stat: str) -> int | None:
    """Return the same from the output of ``vm_stat`` on a Mac."""
    size = re.search(r"page size of (\d+) bytes", vm_stat)
    counts = dict(re.findall(r"^Pages (free|inactive|speculative|purgeable):\s+(\d+)\.$", vm_stat, re.MULTILINE))
    if size is None or "free" not in counts:
        return None
    # Purgeable pages are already counted among the others.
    return int(size[1]) * sum(int(counts.get(kind, 0)) for kind in ("free", "inactive", "speculative"))


def free_disk(path: Path) -> int | None:
    """Return the free bytes where *path* is, or would be."""
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        return shutil.disk_usage(there).free
    except (OSError, StopIteration):
        return None


def hub_cache() -> Path:
    """Return where the Hub's client keeps its downloads, from the environment variables that it uses."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser() / "hub"


def is_port_free(port: int) -> bool:
    """Return whether a server could listen at *port* of the loopback address."""
    with socket.socket() as client:
        client.settimeout(0.2)
        if client.connect_ex(("127.0.0.1", port)) == 0:
            return False
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# File systems on another machine, or on the host of a virtual one.
_NETWORK_DISKS = {
    *("9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "davfs", "fakeowner", "gfs2", "glusterfs", "gpfs", "lustre"),
    *("ncpfs", "nfs", "nfs4", "osxfs", "prl_fs", "prl_vfs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "webdav"),
}
_NETWORK_FUSE = re.compile(r"fuse\..*(?:ceph|cifs|dav|drive|gcs|gluster|mount|nfs|rclone|s3|smb|ssh|vmhgfs).*")


def network_disk(path: Path, mounts: str | None = None) -> str | None:
    """Return the kind of file system that *path* is on if that is another machine's, as far as is known.

    *mounts* is the system's list of its file systems: ``/proc/self/mountinfo``, or the output of ``mount``.
    """
    if mounts is None:
        mounts = _output("/sbin/mount") if sys.platform == "darwin" else _read("/proc/self/mountinfo")
    try:
        parents = {str(each) for each in (path.resolve(), *path.resolve().parents)}
    except OSError:
        return None
    found = [(len(point), kind) for point, kind in _mounted(mounts) if point in parents]
    kind = max(found, default=(0, ""), key=lambda each: each[0])[1]  # of two at one place the first: see _mounted
    return kind if kind in _NETWORK_DISKS or _NETWORK_FUSE.fullmatch(kind) else None


def _mounted(mounts: str) -> list[tuple[str, str]]:
    """Return where file systems are mounted, and their kinds; of several at one place, the visible one comes first."""
    linux = re.compile(r"\S+ \S+ \S+ \S+ (\S+) .* - (\S+) ")
    macos = re.compile(r".* on (/.*) \((\w+)")
    found = []
    for line in mounts.splitlines():
        if match := linux.match(line) or macos.match(line):
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), match[1])
            found.append((point, match[2]))
    return found[::-1]


def _output(*command: str) -> str:
    """Return the output of a system program; nothing if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
