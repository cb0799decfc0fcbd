import asyncio
import functools
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from olmocr.errors import ExitCode, InputError, MissingDependencyError, OutputError
from olmocr.rendering.pool import RenderPool, default_workers
from olmocr.rendering.render import open_document
from tests.clocks import run_skipping, skip_until
from tests.conftest import PAGES, ROOT
from tests.pipeline.doubles import write_pdf
from tests.waiting import until

SCRIPTED = (sys.executable, str(Path(__file__).with_name("scripted_renderer.py")))


def script(folder, *lines):
    path = folder / "script.pdf"
    path.write_text("\n".join(lines))
    return path


def with_pool(use, *options, **named):
    """Run *use(pool)* to its end with a pool of scripted workers."""

    async def run():
        async with RenderPool(*options, **{"command": SCRIPTED} | named) as pool:
            return await use(pool)

    return asyncio.run(run())


def render_all(path, *numbers, **options):
    """Return what came of each page: a RenderedPage, or the error."""

    async def use(pool):
        pages = [pool.render(path, path.name, number, 50) for number in numbers]
        return await asyncio.gather(*pages, return_exceptions=True)

    return with_pool(use, **options)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not is_zombie(pid)


def is_zombie(pid):
    """Say whether it has ended and only its parent, who may be no longer there, has not looked."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.startswith("Z")


wait_until = functools.partial(until, seconds=60)


def test_a_page_is_the_same_as_without_workers():
    path = PAGES / "report_22.pdf"

    async def use(pool):
        count = await pool.page_count(path, path.name)
        return [await pool.render(path, path.name, number, 644) for number in range(1, count + 1)]

    async def run():
        async with RenderPool(1) as pool:
            return await use(pool)

    rendered = asyncio.run(run())
    with open_document(path, path.name) as pages:
        assert len(rendered) == pages.page_count
        for number, page in enumerate(rendered, 1):
            image = pages.render(number, 644)
            assert page.image == image
            assert page.text_layer == pages.text(number)
    assert [page.is_blank for page in rendered] == [False, False, True]


def test_a_refusal_says_what_it_says_without_workers(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", password="secret")

    async def run():
        async with RenderPool(1) as pool:
            await pool.page_count(path, "the file")

    with pytest.raises(InputError, match=r"^the file is encrypted; save a copy without its password and give that$"):
        asyncio.run(run())


def test_a_page_that_crashes_the_renderer_fails_alone(tmp_path):
    path = script(tmp_path, "good", "good", "crash", "good", "good")
    *before, crashed, four, five = render_all(path, 1, 2, 3, 4, 5, workers=2)
    assert isinstance(crashed, InputError)
    assert str(crashed) == (
        "page 3 of script.pdf crashed the PDF renderer (SIGSEGV); open the file in a viewer and save it again"
    )
    assert [page.image.pixels.size for page in (*before, four, five)] == [(50, 1), (50, 2), (50, 4), (50, 5)]


def hung(path, *numbers, time_limit=500):
    """Return what came of each page, one after the other, where every time limit is over as soon as a page is begun."""

    async def use():
        async with RenderPool(1, command=SCRIPTED, time_limit=time_limit) as pool:
            for number in numbers:
                page = asyncio.ensure_future(pool.render(path, path.name, number, 50))
                begun = path.parent / f"{number}.begun"
                while not page.done():
                    if begun.exists():
                        begun.unlink()
                        if "hang" in path.read_text().splitlines()[number - 1]:
                            await skip_until(page, time_limit / 50, 60)
                    await asyncio.sleep(0.005)
                yield page.exception() or page.result()

    async def gathered():
        return [each async for each in use()]

    return run_skipping(gathered())


def asked(path):
    """Return which pages the workers were asked for, and how."""
    return (path.parent / "asked").read_text().splitlines()


def test_a_page_that_hangs_is_tried_once_more_and_fails_alone(tmp_path):
    path = script(tmp_path, "hang", "good", "good")
    error, *others = hung(path, 1, 2, 3)
    assert isinstance(error, InputError)
    assert str(error).startswith("page 1 of script.pdf was not rendered within 500 seconds; ")
    assert len({page.text_layer for page in others}) == 1
    assert asked(path) == ["1", "1 without its form", "2", "3"]


def form_script(folder, *lines):
    return script(folder, *lines).rename(folder / "form.pdf")


@pytest.mark.parametrize(("fault", "tries"), [("hang", 1), ("crash", 2)])
def test_a_document_whose_form_hangs_or_crashes_is_drawn_without_it_from_then_on(fault, tries, tmp_path, caplog):
    path = form_script(tmp_path, "good", f"form-{fault}", f"form-{fault}", "good")
    pages = hung(path, 1, 2, 3, 4)
    assert [page.image.pixels.size for page in pages] == [(50, number) for number in (1, 2, 3, 4)]
    without = [f"{number} without its form" for number in (2, 3, 4)]
    assert asked(path) == ["1", *["2"] * tries, *without]
    assert caplog.messages == [
        "form.pdf is drawn without its form, which is damaged: fields without an appearance of their own are missing"
    ]


def test_a_page_that_crashes_once_keeps_its_form(tmp_path):
    path = form_script(tmp_path, "crash-once", "good")
    assert [page.image.pixels.size for page in render_all(path, 1, 2, workers=1)] == [(50, 1), (50, 2)]
    assert asked(path) == ["1", "1", "2"]


def test_a_page_that_crashes_with_its_form_and_without_leaves_the_others_their_form(tmp_path):
    path = form_script(tmp_path, "crash", "good")
    crashed, good = render_all(path, 1, 2, workers=1)
    assert "crashed the PDF renderer (SIGSEGV)" in str(crashed)
    assert asked(path) == ["1", "1", "1 without its form", "2"]
    assert good.image.pixels.size == (50, 2)


def test_time_in_which_all_was_stopped_does_not_count(tmp_path):
    path = script(tmp_path, "wait-for go")

    async def use():
        async with RenderPool(1, command=SCRIPTED, time_limit=500) as pool:
            page = asyncio.ensure_future(pool.render(path, path.name, 1, 50))
            while not (tmp_path / "1.begun").exists():
                await asyncio.sleep(0.005)
            await skip_until(page, 36_000, 3)  # a lid is closed for ten hours, and again
            (tmp_path / "go").touch()
            return await page

    assert run_skipping(use()).image.pixels.size == (50, 1)
    assert asked(path) == ["1"]


def test_a_page_whose_worker_was_broken_by_another_is_rendered_by_a_new_one(tmp_path):
    path = script(tmp_path, "crash-once")
    assert render_all(path, 1)[0].image.pixels.size == (50, 1)


def test_a_worker_that_was_killed_while_idle_is_replaced(tmp_path):
    path = script(tmp_path, "good")

    async def use(pool):
        first = int((await pool.render(path, "a", 1, 50)).text_layer)
        os.kill(first, signal.SIGKILL)
        return first, int((await pool.render(path, "a", 1, 50)).text_layer)

    first, second = with_pool(use, 1)
    assert first != second


def test_pages_are_rendered_in_parallel(tmp_path):
    path = script(tmp_path, "wait-for 2.begun", "wait-for 1.begun")
    first, second = render_all(path, 1, 2, workers=2)
    assert first.text_layer != second.text_layer


def test_pages_are_rendered_in_the_order_in_which_they_are_asked_for(tmp_path):
    path = script(tmp_path, *["good"] * 6)
    order = []

    async def use(pool):
        async def one(number):
            await pool.render(path, "a", number, 50)
            order.append(number)

        await asyncio.gather(*map(one, (3, 1, 6, 2, 5, 4)))

    with_pool(use, 1)
    assert order == [3, 1, 6, 2, 5, 4]


def test_what_a_library_prints_is_not_taken_for_an_answer(tmp_path):
    assert render_all(script(tmp_path, "print"), 1)[0].image.pixels.size == (50, 1)


def test_nonsense_instead_of_an_answer_is_a_crash(tmp_path):
    program = """
import sys
answers = sys.stdout.buffer
answers.write(b"\\0\\0\\0\\2{}"), answers.flush(), sys.stdin.buffer.read(4)
answers.write(b"\\xff" * 8), answers.flush(), sys.stdin.buffer.read()
"""
    error = render_all(script(tmp_path, "good"), 1, command=(sys.executable, "-c", program))[0]
    assert isinstance(error, InputError)
    assert "crashed the PDF renderer (its answer cannot be understood)" in str(error)


def test_an_error_that_nobody_foresaw_is_that_pages(tmp_path):
    bug, good = render_all(script(tmp_path, "bug thing", "good"), 1, 2, workers=1)
    assert str(bug) == "page 1 of script.pdf could not be rendered: KeyError: 'thing'"
    assert good.image.pixels.size == (50, 2)


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac does not bound the address space")
def test_a_page_that_needs_too_much_memory_fails_alone(tmp_path):
    path = script(tmp_path, f"allocate {2**30}", "good")
    large, good = render_all(path, 1, 2, workers=1, memory_limit=2**30)
    assert str(large) == "page 1 of script.pdf needs more memory to be rendered than it may have"
    assert good.image.pixels.size == (50, 2)


def test_pixels_that_cannot_be_written_are_no_fault_of_the_page(tmp_path):
    error = render_all(script(tmp_path, "lose-pixels"), 1)[0]
    assert isinstance(error, OutputError)
    assert "page 1 of script.pdf" in str(error)


def test_a_worker_that_has_grown_is_replaced_after_some_pages(tmp_path):
    path = script(tmp_path, *["good"] * 50)
    pids = [page.text_layer for page in render_all(path, *range(1, 51), workers=1, grown=1)]
    assert len(set(pids)) == 3
    assert pids == sorted(pids, key=pids.index)


def killed_at_their_starts(folder, *, to):
    """Return a command for workers; those with numbers below *to* are killed before they are ready."""
    program = f"""
import os, runpy, sys
with open({str(folder / "starts")!r}, "a+") as file:
    file.write("x"), file.flush()
    number = file.tell()
if number in {set(to)!r}:
    os.kill(os.getpid(), 9)
runpy.run_path({SCRIPTED[-1]!r}, run_name="__main__")
"""
    return (*SCRIPTED[:-1], "-c", program)


def test_a_page_in_which_the_renderer_is_killed_twice_fails_alone_and_says_so(tmp_path):
    killed, good = render_all(script(tmp_path, "kill", "good"), 1, 2, workers=1)
    assert isinstance(killed, InputError)
    assert str(killed).startswith("page 1 of script.pdf was not rendered: the PDF renderer was killed twice (SIGKILL)")
    assert good.image.pixels.size == (50, 2)


def test_a_renderer_that_is_killed_at_its_start_is_started_again(tmp_path):
    path = script(tmp_path, "good", "good")
    pages = render_all(path, 1, 2, workers=1, command=killed_at_their_starts(tmp_path, to=(1, 2)))
    assert [page.image.pixels.size for page in pages] == [(50, 1), (50, 2)]


def test_a_renderer_that_is_always_killed_at_its_start_costs_the_pages_in_hand(tmp_path):
    path = script(tmp_path, "good", "good")
    lost, good = render_all(path, 1, 2, workers=1, command=killed_at_their_starts(tmp_path, to=(1, 2, 3)))
    assert isinstance(lost, InputError)
    assert "the PDF renderer died 3 times at its start (SIGKILL)" in str(lost)
    assert good.image.pixels.size == (50, 2)


def test_a_renderer_that_can_no_longer_be_started_costs_the_pages_that_need_it(tmp_path):
    path = script(tmp_path, "good", "kill", "good")
    program = tmp_path / "renderer"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(SCRIPTED)} "$@"\n')
    program.chmod(0o755)

    async def use(pool):
        good = await pool.render(path, "a", 1, 50)
        program.unlink()
        return good, *await asyncio.gather(*(pool.render(path, "a", n, 50) for n in (2, 3)), return_exceptions=True)

    good, killed, lost = with_pool(use, 1, command=(str(program),))
    assert good.image.pixels.size == (50, 1)
    assert isinstance(killed, InputError)
    assert isinstance(lost, InputError)
    assert "No such file" in str(lost)


@pytest.mark.parametrize("message", [b"[]", b"1", b"null", b"{}", b'{"size": [1]}', b'{"size": "ab"}'])
def test_an_answer_of_another_kind_is_a_crash(message, tmp_path):
    program = f"""
import sys
answers = sys.stdout.buffer
answers.write(b"\\0\\0\\0\\2{{}}"), answers.flush(), sys.stdin.buffer.read(4)
answers.write({len(message).to_bytes(4, "big") + message!r}), answers.flush(), sys.stdin.buffer.read()
"""
    error = render_all(script(tmp_path, "good"), 1, command=(sys.executable, "-c", program))[0]
    assert isinstance(error, InputError)
    assert "its answer cannot be understood" in str(error)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ((sys.executable, "-c", "raise SystemExit('no \\x1b[31mlibrary')"), "no \\x1b[31mlibrary"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "exit status 3"),
        (("/nowhere/python",), "[Errno 2] No such file or directory: '/nowhere/python'"),
    ],
)
def test_a_renderer_that_does_not_start_is_an_error_of_the_run_that_names_a_way_out(command, why, tmp_path):
    error = render_all(script(tmp_path, "good"), 1, command=command)[0]
    assert isinstance(error, MissingDependencyError)
    assert error.exit_code == ExitCode.MISSING_DEPENDENCY
    assert str(error) == (
        f"the PDF renderer ({command[0]}) does not start: {why}; python -m olmocr.doctor says what this machine lacks"
    )


def test_a_file_that_has_changed_is_opened_again(tmp_path):
    async def use(pool):
        before = await pool.page_count(script(tmp_path, "good"), "a")
        return before, await pool.page_count(script(tmp_path, "good", "good"), "a")

    assert with_pool(use, 1) == (1, 2)


def test_modules_in_the_current_folder_are_not_taken_for_ours(tmp_path, monkeypatch):
    (tmp_path / "yaml.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    path = write_pdf(tmp_path / "a.pdf", pages=2)

    async def run():
        async with RenderPool(1) as pool:
            return await pool.page_count(path, "a.pdf")

    assert asyncio.run(run()) == 2


def test_nothing_runs_after_the_context_whatever_ended_it(tmp_path):
    path = script(tmp_path, "good", "hang")
    kept = []

    async def use(pool):
        kept.append(int((await pool.render(path, "a", 1, 50)).text_layer))
        kept.append(asyncio.create_task(pool.render(path, "a", 2, 50)))
        while not (tmp_path / "2.begun").exists():
            await asyncio.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with_pool(use, 1)
    assert not is_running(kept[0])
    assert kept[1].cancelled() or "is closed" in str(kept[1].exception()), "and not a limit of time"


def test_what_ctrl_c_means_is_the_parents_decision(tmp_path):
    path = script(tmp_path, "good")

    async def use(pool):
        first = (await pool.render(path, "a", 1, 50)).text_layer
        os.kill(int(first), signal.SIGINT)
        return first, (await pool.render(path, "a", 1, 50)).text_layer

    first, second = with_pool(use, 1)
    assert first == second


def test_a_cancelled_page_does_not_leave_its_answer_to_the_next(tmp_path):
    path = script(tmp_path, "hang", "good")

    async def use(pool):
        task = asyncio.create_task(pool.render(path, "a", 1, 50))
        while not (tmp_path / "1.begun").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await pool.render(path, "a", 2, 50)

    assert with_pool(use, 1).image.pixels.size == (50, 2)


def test_a_page_that_is_cancelled_again_while_its_worker_ends_leaves_no_worker(tmp_path):
    path, workers = script(tmp_path, "good", "hang"), []

    async def use(pool):
        workers.append(int((await pool.render(path, "a", 1, 50)).text_layer))
        task = asyncio.create_task(pool.render(path, "a", 2, 50))
        while not (tmp_path / "2.begun").exists():
            await asyncio.sleep(0.01)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()

    with_pool(use, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(workers[0], 0)


PROGRAM = """
import asyncio, signal, sys
from pathlib import Path
from olmocr.rendering.pool import RenderPool

async def main(path):
    async with RenderPool(2, command=sys.argv[2:]) as pool:
        print((await pool.render(path, "a", 1, 50)).text_layer, flush=True)
        await pool.render(path, "a", 2, 50)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what runs in its background ignore it
asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_program_even_in_the_middle_of_a_page(how, tmp_path):
    path = script(tmp_path, "good", "hang")
    command = [sys.executable, "-c", PROGRAM, str(path), *SCRIPTED]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as program:
        worker = int(program.stdout.readline())
        wait_until((tmp_path / "2.begun").exists)
        if how == signal.SIGINT:  # as a terminal does
            os.killpg(program.pid, how)
        else:
            program.send_signal(how)
        program.wait(60)
    wait_until(lambda: not is_running(worker))


def test_there_is_always_a_worker_and_never_more_than_four():
    assert 1 <= default_workers() <= 4
