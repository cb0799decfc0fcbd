"""mlx-vlm's real server, started as the pipeline starts it, reads a page of the demo through HTTP."""

import asyncio
import dataclasses
import socket

import pytest
from PIL import Image

from olmocr.backends.batches import sampled_alone
from olmocr.backends.client import ServerClient, probe
from olmocr.backends.local_server import LocalServer, mlx_vlm_command
from olmocr.conversion.convert import convert
from olmocr.conversion.recipe import changed, find_recipe
from olmocr.errors import InputError, ServerError
from olmocr.inputs.sources import Source
from olmocr.page import PageImage, PageRequest, PageResponseError, parse_page_response
from olmocr.rendering.render import open_document
from tests.conftest import CHECKPOINT, PAGES

pytestmark = pytest.mark.slow


def page_image():
    with open_document(Source("a page", PAGES / "sparse_14.pdf")) as pages:
        return pages.render(1, 644)


# Asked hotly about noise, the model writes nonsense, unless it is guided.
NOISE = PageImage(Image.effect_noise((280, 280), 200).convert("RGB"))
NONSENSE = PageRequest(NOISE, prompt="?", temperature=2.0, max_tokens=60)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Return what one server answered, by what it was asked."""
    folder = tmp_path_factory.mktemp("models") / "8bit"
    # float32: on a CPU, MLX multiplies quantized matrices with 16-bit scales ten times more slowly.
    convert(CHECKPOINT, changed(find_recipe("8bit"), dtype="float32"), folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return asyncio.run(ask_everything(mlx_vlm_command(str(folder), port=port, max_num_seqs=2)))


async def ask_everything(command):
    image, answers = page_image(), {}
    questions = {
        "plain": PageRequest(image),
        "guided": PageRequest(image, guided=True),
        "cut": PageRequest(image, max_tokens=5),
        "nonsense": NONSENSE,
        "nonsense, guided": dataclasses.replace(NONSENSE, guided=True),
        "no image": PageRequest(PageImage(NoPixels())),
    }
    async with LocalServer(command) as server:
        url, key = command.url, server.api_key
        answers["probe"] = await probe(url, api_key=key)
        answers["wrong key"] = await outcome(probe(url, api_key="wrong"))
        for api in ("chat", "responses"):
            async with ServerClient(url, model=command.model, api_key=key, api=api, guide="mlx-vlm") as client:
                for name, request in questions.items():
                    answers[api, name] = await outcome(client.ask(request))
                requests = [PageRequest(image, guided=guided) for guided in (True, False)]
                answers[api, "together"] = await asyncio.gather(*map(client.ask, requests))
        async with ServerClient(url, model=command.model, api_key=key) as client:
            # The server reads two pages at once, and would sample the second as the first wants it.
            answers["batch"] = await asyncio.gather(
                *map(sampled_alone(client.ask), (PageRequest(image), NONSENSE, PageRequest(image)))
            )
        async with ServerClient(url, model=command.model, api_key=key, is_looping=lambda text: True) as client:
            answers["loop"] = await client.ask(PageRequest(image))
    return answers


class NoPixels:
    """Encodes itself as something that is not an image."""

    def save(self, file, **options):
        file.write(b"no image at all")


async def outcome(awaitable):
    try:
        return await awaitable
    except Exception as error:
        return error


apis = pytest.mark.parametrize("api", ["chat", "responses"])


@pytest.fixture
def natural_text(truth):
    return truth["sparse_14.pdf", 1]["natural_text"]


def test_our_launcher_is_recognised_with_what_it_can_do(answers):
    assert (answers["probe"].kind, answers["probe"].guide) == ("mlx-vlm", "mlx-vlm")


def test_the_server_is_closed_to_others(answers):
    assert isinstance(answers["wrong key"], ServerError)


@apis
@pytest.mark.parametrize("name", ["plain", "guided"])
def test_a_page_is_read(answers, natural_text, api, name):
    answer = answers[api, name]
    assert answer.finish_reason == "stop"
    assert parse_page_response(answer.text, "strict").natural_text == natural_text
    assert answer.input_tokens > 200
    assert answer.output_tokens > 40


@apis
def test_guided_and_plain_pages_can_be_read_together(answers, natural_text, api):
    assert [parse_page_response(answer.text).natural_text for answer in answers[api, "together"]] == [natural_text] * 2


@apis
def test_an_answer_that_is_cut_says_so(answers, api):
    assert (answers[api, "cut"].finish_reason, answers[api, "cut"].output_tokens) == ("length", 5)


@apis
def test_a_guided_answer_is_in_the_format_even_where_a_plain_one_is_not(answers, api):
    parse_page_response(answers[api, "nonsense, guided"].text)
    with pytest.raises(PageResponseError):
        parse_page_response(answers[api, "nonsense"].text)


@apis
def test_an_image_that_is_none_is_the_pages_fault_and_not_the_servers(answers, api):
    assert isinstance(answers[api, "no image"], InputError)


def test_a_sampled_page_among_others_is_answered_as_it_would_be_alone(answers):
    plain, nonsense = answers["chat", "plain"], answers["chat", "nonsense"]
    assert answers["batch"] == [plain, nonsense, plain]


def test_an_answer_that_loops_is_stopped(answers):
    assert answers["loop"].finish_reason == "loop"
