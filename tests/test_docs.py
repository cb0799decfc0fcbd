"""The README and the docs are true: their commands run, their numbers are computed, their links lead somewhere."""

import math
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from olmocr.conversion.checkpoint import SourceCheckpoint, TensorInfo
from olmocr.conversion.config import flat_config
from olmocr.conversion.names import expected_shapes
from olmocr.conversion.plan import make_plan
from olmocr.conversion.recipe import RECIPES, find_recipe
from olmocr.errors import ExitCode
from olmocr.model_folder import BF16_REPOSITORY, ModelFolder
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "demo").glob("*.md"),
    ROOT / "benchmarks/README.md",
]


def blocks(kind):
    """Return the README's fenced blocks that begin with ```*kind*."""
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands(kind):
    lines = "".join(blocks(kind)).splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Return a folder that looks like a clone in which the README's commands have run."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "demo").symlink_to(ROOT / "demo")
    for command in commands("sh"):
        done = shell(command, folder)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    return folder


def shell(command, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )


def test_the_readmes_commands_leave_what_it_says_they_do(clone):
    workspace = clone / "build/workspace"
    assert len(list((workspace / "results").glob("output_*.jsonl"))) == 2
    assert (workspace / "markdown/demo/pages/table_15.md").read_text().count("<tr>") > 3


def test_the_readmes_commands_that_end_with_an_exit_code_do(clone):
    (command,) = commands("sh exit=11")
    done = shell(command, clone)
    assert done.returncode == 11
    assert "24 of 26 answers hold" in done.stdout


def test_the_readmes_python_runs(clone):
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True)
    assert done.stdout == "1 done, 0 failed\n", done.stderr


def test_the_readmes_make_targets_are_there():
    named = re.findall(r"^make ([\w-]+)", "\n".join(commands("sh make")), re.MULTILINE)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert set(named) <= targets
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_the_readmes_extras_are_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = ",".join(re.findall(r"\[([\w,]+)\]'", "\n".join(blocks("sh no-run")))).split(",")
    assert len(named) >= 3
    assert set(named) <= set(extras)


def test_the_readmes_command_for_the_hub_has_options_that_exist(clone):
    (command,) = commands("sh needs-hub")
    assert BF16_REPOSITORY in command
    used = re.findall(r"--[\w-]+", command)
    known = shell(f"COLUMNS=200 {command.split(' ' + BF16_REPOSITORY)[0]} --help", clone).stdout
    assert used
    assert all(option in known for option in used)


# The dimensions of Qwen2.5-VL-7B, which olmOCR-2-7B-1025 has: https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct
SEVEN_BILLION = {
    "model_type": "qwen2_5_vl",
    "torch_dtype": "bfloat16",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_readmes_sizes_are_those_that_a_plan_for_the_7b_model_counts(recipe):
    config = flat_config(SEVEN_BILLION)
    tensors = {
        name: TensorInfo(name, "BF16", shape, "model.safetensors", 0, 2 * math.prod(shape))
        for name, shape in expected_shapes(config).items()
    }
    plan = make_plan(SourceCheckpoint(ModelFolder(Path()), config, tensors), find_recipe(recipe))
    assert plan.parameters == 8_292_166_656
    row = next(line for line in README.splitlines() if line.startswith(f"| `{recipe}`"))
    assert [cell.strip() for cell in row.split("|")[2:4]] == [
        f"{plan.weight_bytes / 1e9:.2f} GB",
        f"{plan.bits_per_weight:.2f}",
    ]


def test_every_exit_code_is_in_the_docs_and_no_other():
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/exit-codes.md").read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == [code.value for code in ExitCode]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#:\s]+)\)", document.read_text()):
        if target != "page_startx_starty_width_height.png":
            assert (document.parent / target).exists(), target


def test_every_module_is_in_the_architecture():
    picture = (ROOT / "docs/architecture.md").read_text()
    for path in (ROOT / "olmocr").rglob("*.py"):
        if path.name != "__init__.py":
            assert path.name in picture, path
