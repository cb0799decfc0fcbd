"""Ray's nodes -> places for readers; and what a person is told who has no Ray, or names a cluster that is not there."""

import asyncio
import logging
import os
import socket
import sys
import threading

import pytest

from olmocr.errors import ExitCode, MissingDependencyError, ServerError
from olmocr.pipeline.cluster.actors import PlaceForReader, _join, _ray, _to_the_log, places_on, ray_cluster

A, B = "a" * 56, "b" * 56


def node(name, alive=True, **resources):
    return {"NodeID": name, "Alive": alive, "NodeManagerHostname": "host", "Resources": resources}


def test_each_gpu_is_a_place_and_machines_without_one_have_none_beside_them():
    found = places_on([node(B, CPU=8.0, GPU=2.0), node(A, CPU=64.0)])
    assert found == {f"host-bbbbbbbb/{number}": PlaceForReader(B, gpus=1.0) for number in (1, 2)}


def test_where_no_machine_has_a_gpu_each_mac_is_a_place():
    assert places_on([node(A, CPU=8.0), node(B, CPU=8.0, mlx=1.0)]) == {"host-bbbbbbbb/1": PlaceForReader(B, mlx=1.0)}


def test_where_there_are_only_processors_each_machine_is_a_place_and_its_reader_gets_all_of_them():
    found = places_on([node(B, CPU=2.0), node(A, CPU=4.0), node("c" * 56), node("d" * 56, alive=False, CPU=4.0)])
    assert found == {"host-aaaaaaaa/1": PlaceForReader(A, cpus=4), "host-bbbbbbbb/1": PlaceForReader(B, cpus=2)}


def test_nothing_is_a_place_where_there_is_nothing():
    assert places_on([node(A, alive=False, CPU=1.0), node(B)]) == {}


async def join(address):
    async with ray_cluster(address):
        pass


def test_without_ray_a_person_is_told_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"Ray is not installed .*; install it with: .*\[ray\]") as end:
        asyncio.run(join("local"))
    assert end.value.exit_code == ExitCode.MISSING_DEPENDENCY


class NoCluster:
    """What Ray does where there is no cluster."""

    def __init__(self):
        self.asked_for = None

    def init(self, **options):
        self.asked_for = options
        raise ConnectionError("Could not find any running Ray instance.\nPlease specify the one to connect to")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("auto", "there is no Ray cluster at auto: Could not find any running Ray instance."),
        ("local", "Ray could not be started here: Could not find any running Ray instance."),
    ],
)
def test_a_cluster_that_is_not_there_is_told_of_in_a_sentence(address, sentence):
    ray = NoCluster()
    with pytest.raises(ServerError) as end:
        _join(ray, address)
    assert (str(end.value), end.value.exit_code) == (sentence, ExitCode.SERVER)
    assert ray.asked_for["address"] == address


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "[::1]:{port}", "127.0.0.1:99999"])
def test_where_nobody_listens_ray_is_not_asked_which_would_try_for_minutes(address):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray = NoCluster()
    with pytest.raises(ServerError, match="there is no Ray cluster at "):
        _join(ray, address.format(port=port))
    assert ray.asked_for is None


def test_ray_tells_nobody_that_it_runs_here(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    _ray()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_what_ray_prints_of_nodes_that_die_goes_to_the_log_and_results_to_standard_output(capsys, caplog):
    caplog.set_level(logging.DEBUG)
    with _to_the_log():
        print("a result")
        thread = threading.Thread(target=print, args=("(raylet) Raylet is terminated.\n",), name="ray_listen")
        thread.start()
        thread.join()
    print("another")
    assert capsys.readouterr().out == "a result\nanother\n"
    assert [record.message for record in caplog.records] == ["(raylet) Raylet is terminated."]
