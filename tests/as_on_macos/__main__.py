"""python -m tests.as_on_macos [what pytest takes]: tests, as far as can be had as on a Mac; FILES if it names none."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Whose promises hang on the system: disks, names, processes, memory, pipes.
FILES = (
    "tests/as_on_macos/test_package.py",
    "tests/backends/test_local_server.py",
    "tests/conversion/test_disk.py",
    "tests/conversion/test_partial.py",
    "tests/doctor",
    "tests/hub/test_listing.py",
    "tests/inputs",
    "tests/pipeline/terminal/test_to_text.py",
    "tests/pipeline/test_run_hostile_names.py",
    "tests/pipeline/test_run_keeps.py",
    "tests/pipeline/test_run_property.py",
    "tests/rendering/test_pool.py",
    "tests/runtime",
    "tests/serving/test_connections.py",
    "tests/test_files.py",
    "tests/test_strays.py",
    "tests/viewer/test_catalogue.py",
    "tests/viewer/test_site.py",
    "tests/workspace",
)

# What is left out there, and why. On a Mac these are skipped, or see what the imitation does not show to tests.
LEFT_OUT = dict.fromkeys(
    (
        "tests/runtime/test_device.py::test_a_fast_blas_is_found_by_itself",
        "tests/runtime/test_device.py::test_the_reference_blas_can_be_asked_for",
        "tests/runtime/test_device.py::test_a_library_that_is_not_there_leaves_the_reference_blas",
        "tests/runtime/test_device.py::test_a_blas_that_would_come_too_late_is_not_claimed",
        "tests/runtime/test_device.py::test_mlx_calls_the_fast_blas_and_not_its_own",
    ),
    "a promise about MLX's build for Linux",
) | {
    "tests/rendering/test_pool.py::test_a_page_that_needs_too_much_memory_fails_alone": "macOS bounds no address space",
    "tests/runtime/test_facts.py::test_the_machine_is_one_line_with_its_memory": "the test itself asks for the system",
}

_PROGRAMS = {
    "sysctl": """case "$*" in
"-n machdep.cpu.brand_string") echo "Apple M2" ;;
"-in sysctl.proc_translated") echo 0 ;;
*) exit 1 ;;
esac
""",
    "vm_stat": """cat <<END
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                              100000.
Pages active:                            200000.
Pages inactive:                          150000.
Pages speculative:                         5000.
Pages wired down:                        90000.
Pages purgeable:                           1000.
END
""",
}

_AT_THE_START = """from tests.as_on_macos.python import imitate

imitate({root!r})
"""


def make_environment(folder):
    """Return the variables with which a Python, and all that it starts, is as on macOS; *folder* holds what it takes.

    Temporary files lie below *folder*, behind a link: ``/var`` is one on a Mac.
    """
    start, programs, temporary = (folder / name for name in ("start", "programs", "private/var"))
    for each in (start, programs, temporary):
        each.mkdir(parents=True)
    (folder / "var").symlink_to("private/var")
    (start / "sitecustomize.py").write_text(_AT_THE_START.format(root=str(folder)))
    for name, script in _PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}")
        (programs / name).chmod(0o755)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join((str(start), str(ROOT))),
        "PATH": os.pathsep.join((str(programs), os.environ["PATH"])),
        "TMPDIR": str(folder / "var"),
    }


def run(arguments, files=FILES, **settings):
    """Run what pytest's *arguments* name, or *files*; *settings* are those of ``subprocess.run``."""
    left_out = [word for name in LEFT_OUT for word in ("--deselect", name)]
    # Only pytest knows which of its arguments are names, and which are options' values.
    unnamed = ("-o", f"testpaths={' '.join(files)}")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *left_out, *unnamed, *arguments]
    with tempfile.TemporaryDirectory(prefix="as-on-macos-") as folder:
        environment = make_environment(Path(folder).resolve())
        return subprocess.run(command, cwd=ROOT, env=environment, **settings)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]).returncode)
