"""Who may import whom (docs/architecture.md), read from the source; and what an import costs."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "olmocr"
FLOORS = (
    {"errors", "stages", "strays", "text", "version", "reports"},
    {"page", "html_tables", "files", "disk_dict", "settings", "tensors", "model_folder"},
    {"runtime", "terminal", "tokenizer_file"},
    {"inputs"},
    {"workspace", "rendering", "inference", "hub", "html"},
    {"backends", "viewer", "conversion"},
    {"pipeline"},
    {"validate", "serving", "reader"},
    {"calibration"},
    {"publish", "doctor", "__main__", "__init__"},
    {"convert_to_mlx"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS, start=1) for room in rooms}

INFERENCE = (
    "passes.cache",
    "passes.cpu_forward",
    "costs",
    "decode",
    "engine",
    "passes.forward",
    "passes.joined",
    "model",
    "prompt_reader",
    "passes.rotary",
    "sampling",
    "step",
    "vision",
    "vision_mlx",
)

PASSES = (
    "divergence",
    "drift",
    "gradients",
    "hidden_states",
    "kernels",
    "language",
    "source_blocks",
    "statistics",
    "vision",
    "walk",
)

# Each outside library has one door; everything else asks there.
DOORS = {
    "starlette": {"serving.app", "serving.guard", "serving.server"},
    "fsspec": {"inputs.stores", "workspace.objects.store"},
    "fuzzysearch": {"validate.score"},
    "httpx": {"backends.client", "inputs.stores"},
    "huggingface_hub": {
        "hub.find",
        "hub.listing",
        "hub.read",
        "hub.replies",
        "hub.sentences",
        "hub.write",
        "publish.front_matter",
    },
    "jinja2": {"conversion.source.chat_template", "html", "publish.card"},
    "markdown_it": {"viewer.markdown"},
    "markupsafe": {"html", "publish.card", "publish.markup", "validate.fidelity.html", "viewer.pages"},
    "msgspec": {"reports.typed_json", "serving.requests.questions"},
    "ml_dtypes": {"tensors.floats"},
    "mlx": {
        "runtime.device",
        "calibration.choice",
        *(f"conversion.calibrated.passes.{each}" for each in PASSES),
        "conversion.quantizing.arrays",
        "conversion.quantizing.rows",
        *(f"inference.{each}" for each in INFERENCE),
        "backends.mlx_vlm_launcher",
        *(f"doctor.measure.{each}" for each in ("memory", "passes", "reading", "run")),
        "conversion.calibrated.propagate",
        "conversion.calibrated.rounding.arrays",
        "validate.fidelity.forced",
        "validate.weights.stock",
    },
    "llguidance": {"inference.guided"},
    "mlx_vlm": {
        "inference.passes.cache",
        "inference.passes.forward",
        "backends.mlx_vlm_launcher",
        "doctor.measure.reading",
        "inference.model",
        "validate.fidelity.forced",
        "validate.weights.stock",
    },
    "nh3": {"viewer.markdown"},
    "numba": {"conversion.quantizing.compiled"},
    "pillow_heif": {"rendering.image_file"},
    "PIL": {
        "page",
        "calibration.drawn_pages",
        "inference.engine",
        "rendering.blank",
        "rendering.figures",
        "rendering.image_file",
        "rendering.levels",
        "rendering.render",
        "rendering.pool",
        "rendering.unseen",
        "serving.requests.pictures",
    },
    "prometheus_client": {"pipeline.metrics", "serving.metrics"},
    "py3langid": {"pipeline.document_filter"},
    "pypdf": {"rendering.unseen"},
    "pypdfium2": {"rendering.render", "rendering.unseen"},
    "rapidfuzz": {"validate.score"},
    "ray": {"pipeline.cluster.actors"},
    "threadpoolctl": {"conversion.calibrated.rounding.matrix"},
    "tokenizers": {"validate.smoke.prompts"},
    "torch": {"validate.fidelity.reference"},
    "transformers": {"validate.fidelity.reference"},
    "h11": {"serving.connections"},
    "uvicorn": {"serving.connections", "serving.server"},
    "zstandard": {"workspace.objects.upstream"},
    "yaml": {"conversion.recipe", "page", "publish.eval_results", "publish.front_matter", "validate.fidelity.gates"},
}


def read_modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text())


MODULES = list(read_modules())


@functools.cache
def imports(tree):
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module)
    return frozenset(found)


def own_imports(tree):
    return {name.removeprefix("olmocr.") for name in imports(tree) if name.startswith("olmocr.")}


def is_command(name):
    """Say whether a module is a command; the package's own __main__ only leads to two of them."""
    return name.endswith("__main__") or name == "convert_to_mlx"


def room_of(name):
    return name.split(".")[0]


def test_every_module_has_a_floor():
    assert {room_of(name) for name, _ in MODULES} - {""} <= set(FLOOR_OF)


def test_every_class_has_a_name_of_its_own():
    homes = {}
    for module, tree in MODULES:
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def test_a_room_imports_from_lower_floors_only():
    arrows = {(name, imported) for name, tree in MODULES for imported in own_imports(tree)}
    upward = {
        (name, imported)
        for name, imported in arrows
        if room_of(name) != room_of(imported) and FLOOR_OF[room_of(imported)] >= FLOOR_OF[room_of(name)]
    }
    assert upward == set()


@pytest.mark.parametrize(("name", "tree"), [pair for pair in MODULES if pair[0] != "__main__"])
def test_nothing_imports_a_command(name, tree):
    assert not [imported for imported in own_imports(tree) if is_command(imported)]


@pytest.mark.parametrize("library", DOORS)
def test_an_outside_library_is_imported_at_its_door_and_nowhere_else(library):
    users = {name for name, tree in MODULES if library in {imported.split(".")[0] for imported in imports(tree)}}
    assert users == DOORS[library]


def plain_name(distribution):
    return distribution.lower().replace("_", "-")


def test_each_outside_library_is_declared_for_those_who_install_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name != "dev"}
    required = [*project["dependencies"], *(each for wanted in extras.values() for each in wanted)]
    declared = {plain_name(re.match(r"[\w.-]+", each)[0]) for each in required}
    libraries = {imported.split(".")[0] for _, tree in MODULES for imported in imports(tree)}
    outside = libraries - sys.stdlib_module_names - {"olmocr", "_typeshed"}
    brought_by = packages_distributions()
    assert len(outside) > 20
    assert {each for each in outside if declared.isdisjoint(map(plain_name, brought_by.get(each, [each])))} == set()


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
        "olmocr.backends.local_server",
        "olmocr.conversion.write",
        "olmocr.pipeline.__main__",
        "olmocr.validate.weights.check",
        "olmocr.validate.smoke.run",
        "olmocr.validate.bench.run",
        "olmocr.validate.fidelity.measure",
        "olmocr.viewer.site",
        "olmocr.doctor.checks",
        "olmocr.doctor.measure.run",
        "olmocr.publish.push",
        "olmocr.serving.server",
        "olmocr.serving.app",
        "olmocr.calibration.gather",
    ],
)
def test_mlx_is_not_imported_before_its_blas_can_be(module):
    assert not {"mlx", "mlx_vlm", "transformers"} & loaded_by(f"import {module}")


def test_a_worker_that_renders_starts_without_what_it_does_not_need():
    heavy = {"mlx", "httpx", "huggingface_hub", "numpy", "rich", "typer"}
    assert not heavy & loaded_by("import olmocr.rendering.worker")


def test_the_public_names_are_there():
    import olmocr

    assert all(getattr(olmocr, name) for name in olmocr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        olmocr.nothing  # noqa: B018
