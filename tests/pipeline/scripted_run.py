"""A process that reads PDFs of numbered pages with a scripted model: workspace, seconds a page, PDFs.

Each number is printed when it is answered, so that it is known even of a process that was killed.
"""

import asyncio
import sys

from olmocr import PipelineConfig, run_pipeline
from tests.pipeline.doubles import Reader


class PrintingReader(Reader):
    async def ask(self, request):
        found = await super().ask(request)
        print(found.text.rpartition(" ")[2], flush=True)
        return found


def main():
    workspace, seconds, *pdfs = sys.argv[1:]
    config = PipelineConfig(
        workspace=workspace, pdfs=pdfs, model="m", target_longest_image_dim=64, max_concurrent_pages=3, markdown=True
    )
    summary = asyncio.run(run_pipeline(config, ask=PrintingReader(seconds=float(seconds)).ask))
    print("done", summary.done, "skipped", summary.skipped, "failed", len(summary.failures), flush=True)


if __name__ == "__main__":
    main()
