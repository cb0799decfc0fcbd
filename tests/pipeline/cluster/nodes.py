"""Nodes of a real Ray, all on this machine, as Ray's own tests have them."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import ROOT

# Ray reads them when it is imported. It is to use the loopback interface: not every machine can reach its own address.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


class Nodes:
    """A cluster whose first node is the driver's, without a processor for readers, and *count* more with one each."""

    def __init__(self, folder, count):
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.cluster = Cluster()
        self.cluster.add_node(num_cpus=0, include_dashboard=False, temp_dir=str(folder))
        self.nodes = []
        for _ in range(count):
            self.add_a_node()

    @property
    def address(self):
        return self.cluster.address

    def add_a_node(self):
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def kill_a_node(self):
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def drain_a_node(self, seconds=300):
        """Say of the last node that it is to go in so many seconds, as a cloud does; return its id."""
        node = self.nodes[-1].node_id
        ray = Path(sys.executable).with_name("ray")
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        command = [ray, "drain-node", "--address", self.address, "--node-id", node, *reason]
        command += ["--deadline-remaining-seconds", str(seconds)]
        subprocess.run(command, check=True, capture_output=True)
        return node

    def readers(self):
        """Return the processes of readers, which are the children of this cluster's nodes."""
        found = subprocess.run(["ps", "-eww", "-o", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
        lines = [line.split(None, 2) for line in found.splitlines()[1:]]
        own = {pid for pid, _, words in lines if "raylet" in words and str(self.folder) in words}
        return [int(pid) for pid, parent, words in lines if parent in own and "_ReaderActor" in words]


@contextlib.contextmanager
def nodes_here(count):
    """Yield a cluster of so many nodes for readers, where this package is the one of this checkout."""
    import ray

    before = dict(os.environ)
    os.environ["PYTHONPATH"] = str(ROOT)
    folder = Path(tempfile.mkdtemp(prefix="r"))  # short: a socket's path has 107 characters at most
    try:
        nodes = Nodes(folder, count)
        yield nodes
    finally:
        ray.shutdown()
        nodes.cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)
