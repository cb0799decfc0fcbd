"""Break the package a little, many times over: which of these mutants do the tests beside it not notice?

    python tests/mutants.py --count 200 --seed 1 --jobs 2
    python tests/mutants.py --count 60 olmocr/page.py olmocr/conversion

A mutant is one module with one change (``<`` becomes ``<=``, an argument is left out …), tried in a copy of the tree
against the tests that TARGETS names. Results are appended to a file as they come: a second run goes on where the first
one ended, and tries again what survived, since its tests may be better now.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import difflib
import hashlib
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]

# Modules, and the fewest and fastest tests that should notice whatever breaks in them, the fastest first.
TARGETS = {
    "olmocr/page.py": ["tests/test_page.py", "tests/pipeline/test_ocr_page.py"],
    "olmocr/pipeline/ocr_page.py": ["tests/pipeline/test_ocr_page.py"],
    "olmocr/inference/row.py": [
        "tests/inference/test_row.py", "tests/inference/test_stops.py", "tests/inference/test_decode.py",
    ],
    "olmocr/workspace/*.py": ["tests/workspace", "tests/pipeline/test_run.py", "tests/pipeline/test_run_again.py"],
    "olmocr/reports/*.py": [
        "tests/reports", "tests/conversion/test_report.py", "tests/validate/fidelity/test_ladder.py",
        "tests/validate/fidelity/test_gates.py", "tests/publish/test_eval_results.py", "tests/publish/test_card.py",
    ],
    "olmocr/validate/fidelity/figures.py": ["tests/validate/fidelity/test_figures.py"],
    "olmocr/validate/fidelity/measure.py": ["tests/validate/fidelity/test_measure.py"],
    "olmocr/conversion/source/names.py": ["tests/conversion/source/test_names.py", "tests/conversion/test_plan.py"],
    "olmocr/conversion/plan.py": ["tests/conversion/test_plan.py", "tests/conversion/test_recipe.py"],
}  # fmt: skip

# Of cosmic-ray's operators those that make mistakes as people make them; not those that any run at all would notice.
OPERATORS = re.compile(
    r"core/(ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_FloorDiv|Pow_Mul|BitOr_BitAnd|"
    r"BitAnd_BitOr|LShift_RShift|RShift_LShift)|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|LtE_Lt|"
    r"LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt|Is_IsNot|IsNot_Is)|ReplaceUnaryOperator_Delete_\w+|AddNot|Replace(True|False)"
    r"With\w+|Replace(And|Or)With\w+|Replace(Break|Continue)With\w+|NumberReplacer|ZeroIterationForLoop|"
    r"RemoveDecorator)"
)


class LeaveOutArgument(Operator):
    """Leaves out an argument that is given by name: a bound that is not handed on."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "arglist":
            for child in node.children:
                if child.type == "argument" and child.children[0].type == "name" and child.children[1] == "=":
                    yield child.start_pos, child.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        place, _ = list(self.mutation_positions(node))[index]
        found = next(number for number, child in enumerate(node.children) if child.start_pos == place)
        del node.children[found : found + 2]  # with the comma behind it
        return node

    @classmethod
    def examples(cls) -> Iterable[Any]:
        return ()


@dataclass(frozen=True)
class Mutant:
    module: str
    source: str
    diff: str
    tests: tuple[str, ...]

    @property
    def key(self) -> str:
        return hashlib.sha256(self.diff.encode()).hexdigest()[:12]


def draw(only: list[str], count: int, seed: int) -> list[Mutant]:
    """Return *count* mutants at different places, of each module by the number of places that it has."""
    chance = random.Random(seed)
    places = [
        (module, tests, place)
        for pattern, tests in TARGETS.items()
        for module in sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
        if not only or any(module.startswith(each) for each in only)
        for place in mutable_places((ROOT / module).read_text())
    ]
    chance.shuffle(places)
    mutants: list[Mutant] = []
    for module, tests, operators in places:
        original = (ROOT / module).read_text()
        operator, occurrence = chance.choice(operators)
        source = mutate_code(original, operator, occurrence)
        if source is None or (meaning := meaning_of(source)) is None or meaning == meaning_of(original):
            continue
        lines = difflib.unified_diff(original.splitlines(), source.splitlines(), module, module, lineterm="", n=2)
        mutants.append(Mutant(module, source, "\n".join(lines), tuple(t for t in tests if (ROOT / t).exists())))
        if len(mutants) == count:
            break
    return mutants


def mutable_places(source: str) -> list[list[tuple[Operator, int]]]:
    """Return for each place in *source* the changes that can be made there."""
    operators = [get_operator(name)() for name in operator_names() if OPERATORS.fullmatch(name)]
    nodes = list(ast_nodes(get_ast(source)))
    found: dict[Any, list[tuple[Operator, int]]] = {}
    for operator in (*operators, LeaveOutArgument()):
        positions = (place for node in nodes for place in operator.mutation_positions(node))
        for occurrence, place in enumerate(positions):
            found.setdefault(place, []).append((operator, occurrence))
    return [found[place] for place in sorted(found)]


class _Meaning(ast.NodeTransformer):
    """Leaves out what does nothing when it runs: types, docstrings, what a dataclass forbids."""

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]  # how they are to be given is the caller's matter
        node.defaults += [default for default in node.kw_defaults if default]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: Any) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [each for each in node.decorator_list if "dataclass(" not in ast.unparse(each)]
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.Pass() if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)


def meaning_of(source: str) -> str | None:
    try:
        return ast.dump(_Meaning().visit(ast.parse(source)))
    except SyntaxError:
        return None


def copy_of_the_tree(folder: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def passes(tree: Path, tests: tuple[str, ...], seconds: float) -> bool:
    """Say whether *tests* pass in *tree*; what takes longer than *seconds* does not."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    run = subprocess.Popen(
        command,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return run.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)  # and what it has started
        run.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="paths, or beginnings of them; default: all of TARGETS")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "mutants.jsonl")
    options = parser.parse_args()
    mutants = draw(options.modules, options.count, options.seed)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    earlier = options.results.read_text().splitlines() if options.results.exists() else []
    killed = {entry["key"] for entry in map(json.loads, earlier) if entry["killed"]}
    left = [mutant for mutant in mutants if mutant.key not in killed]
    print(f"{len(mutants)} mutants, {len(left)} of them to be tried; results go to {options.results}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(options.jobs):
            trees.put(copy_of_the_tree(Path(folder) / str(number)))
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            limits = dict(pool.map(lambda tests: (tests, limit_of(trees, tests)), {each.tests for each in left}))
            tried = [pool.submit(is_killed, trees, mutant, limits[mutant.tests]) for mutant in left]
            for mutant, outcome in zip(left, tried, strict=True):
                entry = {"key": mutant.key, "killed": outcome.result(), "module": mutant.module, "diff": mutant.diff}
                with options.results.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
                print("killed  " if entry["killed"] else f"SURVIVED\n{mutant.diff}\n", mutant.module, flush=True)
                killed |= {mutant.key} if entry["killed"] else set()
    print_shares(mutants, killed)


def limit_of(trees: queue.Queue[Path], tests: tuple[str, ...]) -> float:
    """Return how long these tests may take, several times as long as they do."""
    tree, started = trees.get(), time.monotonic()
    try:
        if not passes(tree, tests, 900):
            sys.exit(f"without any change these tests do not pass: {' '.join(tests)}")
    finally:
        trees.put(tree)
    return 10 + 3 * (time.monotonic() - started)


def is_killed(trees: queue.Queue[Path], mutant: Mutant, seconds: float) -> bool:
    tree = trees.get()
    try:
        (tree / mutant.module).write_text(mutant.source)
        return not passes(tree, mutant.tests, seconds)
    finally:
        shutil.copy(ROOT / mutant.module, tree / mutant.module)
        trees.put(tree)


def print_shares(mutants: list[Mutant], killed: set[str]) -> None:
    made = Counter(each.module for each in mutants)
    ended = Counter(each.module for each in mutants if each.key in killed)
    for module, number in sorted(made.items()):
        print(f"{ended[module]:4} of {number:4} killed  {module}")
    print(f"{ended.total():4} of {made.total():4} killed, {100 * ended.total() / max(made.total(), 1):.1f} %")


if __name__ == "__main__":
    main()
