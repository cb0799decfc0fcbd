""""""

import shutil
import socket
from pathlib import Path

import pytest

from olmocr.runtime.machine import (
    available_memory,
    available_on_a_mac,
    chip,
    free_disk,
    is_port_free,
    network_disk,
    total_memory,
)

LINUX = r"""22 27 0:21 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:40 / /mnt/share rw,relatime shared:2 - nfs4 server:/export rw
24 22 0:41 / /mnt/share/local rw - ext4 /dev/sdb1 rw
25 22 0:42 / /mnt/with\040space rw - fuse.sshfs me@host: rw
26 22 0:43 / /mnt/twice rw - nfs4 server:/export rw
27 22 0:44 / /mnt/twice rw - ext4 /dev/sdc1 rw
28 22 0:45 / /mnt/image rw - fuse.squashfuse image rw
"""


MACOS = """/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse)
//me@server/Scans on /Volumes/Scans (smbfs, nodev, nosuid, mounted by me)
"""


@pytest.mark.parametrize(
    ("path", "mounts", "kind"),
    [
        ("/home/me/ws", LINUX, None),
        ("/mnt/share/ws", LINUX, "nfs4"),
        ("/mnt/share", LINUX, "nfs4"),
        ("/mnt/shared", LINUX, None),
        ("/mnt/share/local/ws", LINUX, None),
        ("/mnt/with space/ws", LINUX, "fuse.sshfs"),
        ("/mnt/twice/ws", LINUX, None),
        ("/mnt/image/ws", LINUX, None),
        ("/Volumes/Scans/ws", MACOS, "smbfs"),
        ("/opt/ws", MACOS, None),
        ("/opt/ws", "", None),
        ("/opt/ws", "nonsense\n", None),
    ],
)
def test_a_disk_of_another_machine_is_known_by_its_kind(path, mounts, kind):
    assert network_disk(Path(path), mounts) == kind


def test_the_disk_that_tests_run_on_is_looked_up(tmp_path):
    assert network_disk(tmp_path) is None or isinstance(network_disk(tmp_path), str)


GIB = 1 << 30


def test_a_port_is_free_until_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_port_free(port)
    assert is_port_free(port)


def test_the_machine_has_a_chip_memory_and_a_disk(tmp_path):
    assert chip()
    assert GIB < total_memory() < 1 << 45
    assert 0 < available_memory() <= total_memory()
    there, not_yet = free_disk(tmp_path), free_disk(tmp_path / "not/yet/made")
    assert abs(there - not_yet) < GIB
    assert abs(there - shutil.disk_usage(tmp_path).free) < GIB


def test_what_a_mac_says_of_its_memory_is_understood():
    vm_stat = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               1000.\n"
        "Pages active:                           200000.\n"
        "Pages inactive:                           3000.\n"
        "Pages speculative:                         500.\n"
        "Pages wired down:                        90000.\n"
        "Pages purgeable:                           250.\n"
    )
    assert available_on_a_mac(vm_stat) == 4500 * 16384
    assert available_on_a_mac("") is None
