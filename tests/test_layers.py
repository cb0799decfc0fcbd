"""Who may import whom (docs/architecture.md), read from the source; and what an import costs."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "olmocr"
LEAVES = {"errors", "page", "device", "memory", "model_folder", "text"}

MAY_IMPORT = {
    **dict.fromkeys(LEAVES, LEAVES),
    "command": LEAVES,
    "conversion": LEAVES | {"conversion"},
    "inference": LEAVES | {"inference"},
    "pipeline": LEAVES | {"inference", "pipeline"},
    "validate": LEAVES | {"conversion", "doctor", "inference", "pipeline", "validate"},
    "serving": LEAVES | {"pipeline", "serving"},
    "viewer": LEAVES | {"pipeline", "viewer"},
    "doctor": LEAVES | {"conversion", "doctor"},
    "publish": LEAVES | {"conversion", "validate", "publish"},
}

INFERENCE = (
    "cache",
    "costs",
    "decode",
    "engine",
    "forward",
    "model",
    "prompt",
    "reading",
    "sampling",
    "vision",
    "vision_mlx",
)

# Each outside library has one door; everything else asks there.
DOORS = {
    "fastapi": {"serving.app"},
    "fsspec": {"pipeline.remote"},
    "httpx": {"pipeline.client", "pipeline.remote"},
    "huggingface_hub": {"model_folder", "publish.front_matter", "publish.hub"},
    "jinja2": {"conversion.chat_template", "publish.card", "validate.fidelity_html", "viewer.site"},
    "markdown_it": {"viewer.markdown"},
    "markupsafe": {"publish.card", "publish.markup", "validate.fidelity_html", "viewer.site"},
    "mlx": {
        "device",
        "conversion.arrays",
        "conversion.quantize",
        *(f"inference.{each}" for each in INFERENCE),
        "inference.guided_server",
        "validate.forced",
        "validate.stock",
    },
    "llguidance": {"inference.guided"},
    "mlx_vlm": {
        "inference.cache",
        "inference.forward",
        "inference.guided_server",
        "inference.model",
        "validate.forced",
        "validate.stock",
    },
    "nh3": {"viewer.markdown"},
    "numba": {"conversion.compiled"},
    "pillow_heif": {"pipeline.render"},
    "PIL": {
        "page",
        "inference.engine",
        "pipeline.blank",
        "pipeline.render",
        "pipeline.render_pool",
        "serving.pictures",
    },
    "prometheus_client": {"pipeline.metrics", "serving.metrics"},
    "py3langid": {"pipeline.document_filter"},
    "pypdfium2": {"pipeline.render"},
    "rapidfuzz": {"validate.score"},
    "tokenizers": {"validate.prompts"},
    "torch": {"validate.reference"},
    "transformers": {"validate.reference"},
    "tenacity": {"pipeline.backoff"},
    "uvicorn": {"serving.server"},
    "yaml": {"conversion.recipe", "page", "publish.eval_results", "validate.gates"},
}


def read_modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text())


MODULES = list(read_modules())


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module


def own_imports(tree):
    return {name.removeprefix("olmocr.") for name in imports(tree) if name.startswith("olmocr.")}


def is_command(name):
    """Say whether a module is a command; the package's own __main__ only leads to two of them."""
    return name.endswith("__main__") or name == "convert_to_mlx"


@pytest.mark.parametrize(("name", "tree"), [pair for pair in MODULES if pair[0] != "__init__"])
def test_a_module_imports_only_what_its_layer_may(name, tree):
    if name == "__main__":
        allowed = {"pipeline", "serving"}
    elif name == "convert_to_mlx":
        allowed = LEAVES | {"command", "conversion", "validate", "publish"}
    else:
        allowed = MAY_IMPORT[name.split(".")[0]] | ({"command"} if is_command(name) else set())
    assert {imported.split(".")[0] for imported in own_imports(tree)} <= allowed


@pytest.mark.parametrize(("name", "tree"), [pair for pair in MODULES if pair[0] != "__main__"])
def test_nothing_imports_a_command(name, tree):
    assert not [imported for imported in own_imports(tree) if is_command(imported)]


@pytest.mark.parametrize("library", DOORS)
def test_an_outside_library_is_imported_at_its_door_and_nowhere_else(library):
    users = {name for name, tree in MODULES if library in {imported.split(".")[0] for imported in imports(tree)}}
    assert users == DOORS[library]


def loaded_by(statement):
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_nothing_else():
    heavy = {"mlx", "mlx_vlm", "numpy", "PIL", "pypdfium2", "transformers", "typer", "rich", "huggingface_hub", "yaml"}
    assert not heavy & loaded_by("import olmocr")


@pytest.mark.parametrize(
    "module",
    [
        "olmocr.pipeline.run",
        "olmocr.pipeline.server",
        "olmocr.conversion.folder",
        "olmocr.pipeline.__main__",
        "olmocr.validate.weights",
        "olmocr.validate.smoke",
        "olmocr.validate.bench",
        "olmocr.validate.fidelity",
        "olmocr.viewer.site",
        "olmocr.doctor.checks",
        "olmocr.publish.push",
        "olmocr.serving.server",
        "olmocr.serving.app",
    ],
)
def test_mlx_is_not_imported_before_its_blas_can_be(module):
    assert not {"mlx", "mlx_vlm", "transformers"} & loaded_by(f"import {module}")


def test_a_worker_that_renders_starts_without_what_it_does_not_need():
    heavy = {"mlx", "httpx", "huggingface_hub", "numpy", "rich", "typer"}
    assert not heavy & loaded_by("import olmocr.pipeline.render_worker")


def test_the_public_names_are_there():
    import olmocr

    assert all(getattr(olmocr, name) for name in olmocr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        olmocr.nothing  # noqa: B018
