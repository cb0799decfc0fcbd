from pathlib import Path

import pytest

from olmocr.runtime.machine import network_disk

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
