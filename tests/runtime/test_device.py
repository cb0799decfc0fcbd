import json
import os
import subprocess
import sys
import textwrap

import pytest

from olmocr.runtime.device import (
    WAITING,
    compiled_kernels,
    keep_kernels,
    keep_plans,
    let_waiting_threads_sleep,
    limit_of,
    memory_limits,
)
from olmocr.runtime.extras import install_command
from tests.conftest import DEVICE

only_linux_cpu = pytest.mark.skipif(
    sys.platform != "linux" or DEVICE.kind != "cpu", reason="a BLAS for MLX's CPU build"
)


def started(script="", **environment):
    """Start MLX in a fresh process and return what it says of itself, after *script*."""
    code = textwrap.dedent(script) + textwrap.dedent("""
        import json
        from olmocr.runtime.device import start_mlx
        device = start_mlx()
        print(json.dumps([device.kind, device.blas, str(device)]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@only_linux_cpu
def test_a_fast_blas_is_found_by_itself():
    kind, blas, text = started()
    assert kind == "cpu"
    assert blas.startswith(("libmkl_rt.so", "libopenblas.so"))
    assert blas in text


@only_linux_cpu
def test_the_reference_blas_can_be_asked_for():
    assert started(OLMOCR_BLAS="reference")[1] == "reference"


@only_linux_cpu
def test_a_library_that_is_not_there_leaves_the_reference_blas():
    assert started(OLMOCR_BLAS="/nowhere/libblas.so")[1] == "reference"


@only_linux_cpu
def test_a_blas_that_would_come_too_late_is_not_claimed():
    assert started("import mlx.core")[1] == "reference"


@only_linux_cpu
def test_mlx_calls_the_fast_blas_and_not_its_own():
    code = "from olmocr.runtime.device import start_mlx; print(start_mlx().blas)"
    environment = os.environ | {"LD_DEBUG": "bindings"}  # the linker tells what it binds each symbol to
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    bound = [line for line in done.stderr.splitlines() if "`cblas_sgemm'" in line and "libmlx.so" in line]
    assert bound
    assert all(done.stdout.strip() in line.split(" to ")[1] for line in bound)


@only_linux_cpu
def test_threads_of_the_blas_and_of_numpy_sleep_while_they_wait():
    code = """
        import os
        from olmocr.runtime.device import WAITING, start_mlx
        start_mlx()
        print({name: os.environ[name] for name in WAITING})
    """
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{WAITING}\n"


@pytest.mark.parametrize(
    ("own", "then"),
    [
        ({}, WAITING),
        ({"KMP_BLOCKTIME": "200"}, {**WAITING, "KMP_BLOCKTIME": "200"}),
        (
            {"OMP_WAIT_POLICY": "active", "OPENBLAS_THREAD_TIMEOUT": "26"},
            {"OMP_WAIT_POLICY": "active", "OPENBLAS_THREAD_TIMEOUT": "26"},
        ),
        ({"KMP_LIBRARY": "turnaround"}, {"KMP_LIBRARY": "turnaround", "OPENBLAS_THREAD_TIMEOUT": "4"}),
    ],
)
def test_what_a_person_said_about_waiting_threads_stays(own, then):
    environment = dict(own)
    let_waiting_threads_sleep(environment)
    assert environment == then


def test_a_machine_without_mlx_is_told_how_to_get_it(tmp_path):
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx/__init__.py").write_text("raise ImportError('No module named mlx')")
    with pytest.raises(subprocess.CalledProcessError) as error:
        started(PYTHONPATH=str(tmp_path))
    assert install_command("mlx") in error.value.stderr


GIB = 1 << 30


@pytest.mark.parametrize(
    ("gib", "recommended", "expected"),
    [
        (8, 5.33, (5.33, 5.33, 5.33 / 8)),
        (64, 48, (48, 48, 1.5)),
        (192, 147, (147, 147, 1.5)),
        (64, 64, (57.6, 57.6, 1.5)),  # by a sysctl that leaves nothing to the system
    ],
)
def test_a_mac_keeps_wired_what_its_driver_recommends_and_less_than_all(gib, recommended, expected):
    info = {"max_recommended_working_set_size": int(recommended * GIB), "memory_size": gib * GIB}
    limits = memory_limits(info)
    assert [limits.wired / GIB, limits.memory / GIB, limits.cache / GIB] == pytest.approx(expected)
    assert limits.wired < gib * GIB


@pytest.mark.parametrize(
    "info", [{}, {"memory_size": GIB}, {"memory_size": GIB, "max_recommended_working_set_size": 0}]
)
def test_where_a_device_does_not_tell_its_memory_nothing_is_limited(info):
    assert memory_limits(info) is None


def test_the_thread_that_imports_mlx_outlives_the_one_that_asked_for_it():
    """MLX takes the GIL when the thread that imported it ends; at the end of a process that aborted it."""
    code = textwrap.dedent("""
        import sys, threading
        from olmocr.runtime.device import start_mlx

        class Watch:
            def find_spec(self, name, path=None, target=None):
                if name == "mlx.core":
                    importers.append(threading.current_thread())

        importers = []
        sys.meta_path.insert(0, Watch())
        asking = threading.Thread(target=start_mlx)
        asking.start()
        asking.join()
        print([(each is asking, each.is_alive()) for each in importers])
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[(False, True)]\n"


def test_kernels_that_mlx_compiles_are_kept_in_the_users_cache_and_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    environment = {}
    keep_kernels(environment)
    folder = tmp_path / "olmocr/kernels" / DEVICE.mlx_version
    assert environment == {"MLX_PTX_CACHE_DIR": str(folder)}
    for name in ("a.ptx", "b.ptx", "b.txt"):
        (folder / name).touch()
    assert compiled_kernels(environment) == 2
    assert compiled_kernels({}) == 0


def test_a_place_for_kernels_that_a_person_named_stays():
    environment = {"MLX_PTX_CACHE_DIR": "/mine"}
    keep_kernels(environment)
    assert environment == {"MLX_PTX_CACHE_DIR": "/mine"}


def test_where_the_users_cache_cannot_be_written_mlx_keeps_kernels_where_it_likes(tmp_path, monkeypatch):
    (tmp_path / "olmocr").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    environment = {}
    keep_kernels(environment)
    assert environment == {}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"architecture": "x86_64"}, None),
        ({"max_recommended_working_set_size": 12, "memory_size": 16}, 12),
        ({"total_memory": 200, "free_memory": 150}, 190),
    ],
)
def test_what_a_gpu_can_keep_is_what_its_driver_recommends_or_most_of_its_memory(info, expected):
    assert limit_of(info) == expected


def test_mlx_never_refuses_a_size_on_cuda_since_it_has_seen_many_unless_a_person_wants_that():
    environment = {"MLX_CUDA_SDPA_CACHE_SIZE": "64"}
    keep_plans(environment)
    assert environment == {"MLX_CUDA_SDPA_CACHE_SIZE": "64", "MLX_ENABLE_CACHE_THRASHING_CHECK": "0"}
