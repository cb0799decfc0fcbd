"""``python -m tests.publish.transcript``: the whole way to the Hub and back, as text for docs/publishing.md.

Every command runs as a process of its own, against a Hub on the loopback interface, in a folder that is made for it.
What differs from run to run (port, commits, the report that tells seconds) is masked, so that a test can compare.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.hub.hub_writes import TOKEN, Account, Fault, WritableHub

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "model_cards" / "reports"
ORGANISATION = "small-ocr"

CONVERT = (
    "python -m olmocr.convert_to_mlx demo/checkpoint --quantize 8bit,mixed,4bit --output models --no-smoke-test --quiet"
)
MODEL = "models/checkpoint-mlx-8bit"
PUSH = (
    f"python -m olmocr.publish push {MODEL} --repo {ORGANISATION}/tiny-olmocr-8bit "
    f"--base-model {ORGANISATION}/tiny-olmocr --license apache-2.0"
)
READ = (
    f"olmocr workspace --pdfs demo/pages/sparse_14.pdf --model {ORGANISATION}/tiny-olmocr-8bit "
    "--target-longest-image-dim 644 --markdown --quiet"
)
STOCK = """\
import mlx_vlm, pypdfium2
from huggingface_hub import snapshot_download
from mlx_vlm.prompt_utils import apply_chat_template
from olmocr.page import PAGE_PROMPT

page = pypdfium2.PdfDocument("demo/pages/sparse_14.pdf")[0].render(scale=644 / 792).to_pil().convert("RGB")
model, processor = mlx_vlm.load(snapshot_download("small-ocr/tiny-olmocr-8bit", local_dir="from-hub"))
asked = apply_chat_template(processor, model.config, PAGE_PROMPT, num_images=1)
print(mlx_vlm.generate(model, processor, asked, image=[page], max_tokens=400, temperature=0.0).text)
"""


def transcript() -> str:
    """Run everything and return what a terminal would show."""
    with tempfile.TemporaryDirectory() as folder, WritableHub(Account(organisations={ORGANISATION: "write"})) as hub:
        terminal = _Terminal(Path(folder), hub)
        terminal.run(CONVERT)
        terminal.say("# no smoke test, no measurement: it is not published")
        terminal.run(PUSH)
        terminal.say("# with what `olmocr.validate smoke` and `olmocr.validate fidelity` wrote beside the weights")
        give_reports(Path(folder), "8bit")
        terminal.run(f"{PUSH} --dry-run")
        terminal.say("# the connection breaks when all is uploaded and nothing is committed")
        hub.faults.append(Fault("POST", "/commit/", cut=1000))
        terminal.run(PUSH)
        terminal.say("# the same again")
        terminal.run(PUSH)
        terminal.say(f"# sent to the storage, in both: {len(hub.puts())} file of weights")
        terminal.run(PUSH)
        terminal.say("# the other two, which read and were measured as well")
        for name in ("mixed", "4bit"):
            give_reports(Path(folder), name)
            terminal.run(PUSH.replace("8bit", name))
        terminal.run(f"python -m olmocr.publish reproduce {MODEL} --source demo/checkpoint --quiet")
        terminal.say("# and back, from the Hub")
        terminal.run(f"python -m olmocr.publish audit {ORGANISATION}/tiny-olmocr-8bit --quiet")
        terminal.run(READ)
        terminal.run("head -3 workspace/markdown/demo/pages/sparse_14.md")
        terminal.say("# and with stock mlx-vlm, which takes a minute for it on a CPU")
        (Path(folder) / "stock.py").write_text(STOCK)
        terminal.run("cat stock.py")
        terminal.run("python stock.py")
        return terminal.text()


def give_reports(folder: Path, recipe: str) -> None:
    """Put what was measured of a conversion beside it."""
    for name in ("smoke_report.json", "fidelity_report.json"):
        source = REPORTS / f"tiny-olmocr-{recipe}" / name
        shutil.copyfile(source, folder / "models" / f"checkpoint-mlx-{recipe}" / name)


class _Terminal:
    """A folder, and what was typed and printed in it."""

    def __init__(self, folder: Path, hub: WritableHub) -> None:
        self.folder, self.hub = folder, hub
        self.lines: list[str] = []
        (folder / "demo").symlink_to(ROOT / "demo")
        (folder / "hf").mkdir()
        (folder / "hf" / "token").write_text(TOKEN)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def run(self, command: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        hub = {"HF_ENDPOINT": self.hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(self.folder / "hf")}
        hub["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        env = {**os.environ, **hub, "PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        output = done.stdout.splitlines()
        self.lines += [f"$ {command}", *output]
        if done.returncode:
            self.lines.append(f"(exit code {done.returncode})")

    def text(self) -> str:
        text = "\n".join(self.lines)
        text = text.replace(self.hub.endpoint, "http://127.0.0.1:PORT").replace(str(self.folder), "FOLDER")
        text = re.sub(r"\[Errno \d+\]", "[Errno N]", text)  # Linux and macOS count differently
        text = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", text)
        text = re.sub(r"\b[0-9a-f]{40}\b", "COMMIT", text)
        # These tell how long everything took, and with what.
        times = r"(?m)^(add +(?:README\.md|(?:conversion|smoke|fidelity)_report\.json))  .*$"
        return re.sub(times, r"\1  N bytes  SHA-256 …", text) + "\n"


if __name__ == "__main__":
    print(transcript(), end="")
