""""""

import asyncio
import base64
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image
from pypdf import PdfWriter

from olmocr.errors import AnswerError, ServerUnavailableError
from tests.pipeline.books import FIGURE, TABLE, write_book
from tests.pipeline.doubles import Model, Reader, answer, write_image, write_pdf
from tests.serving.servers import OCR
from tests.serving.uploaded import PDF, HeldBack, by_number, lines_of, reading, refused, uploads
from tests.waiting import until


@pytest.fixture(autouse=True)
def nothing_is_left_of_uploads(reading_server):
    yield
    until(lambda: not uploads(reading_server))


def test_a_pdf_is_read_page_by_page(reading_server, pdf):
    reply = reading_server.post(OCR, content=pdf(7, 0, 300), headers=PDF)
    first, *pages, last = lines_of(reply)
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert (first["type"], first["page_count"], first["pages"]) == ("document", 3, [1, 2, 3])
    assert {n: (each["status"], each["text"]) for n, each in by_number(pages).items()} == {
        1: ("valid", "page 7"), 2: ("blank", None), 3: ("valid", "page 300")
    }  # fmt: skip
    assert (last["type"], last["pages"], last["blank_pages"], last["fallback_pages"]) == ("summary", 3, [2], [])
    assert last["markdown"] == "page 7\npage 300"


def test_pages_come_as_events_to_whoever_wants_these(reading_server, pdf):
    reply = reading_server.post(OCR, content=pdf(5), headers=PDF | {"accept": "text/event-stream"})
    assert [line for line in reply.text.splitlines() if line.startswith("event: ")] == [
        "event: document", "event: page", "event: summary"
    ]  # fmt: skip


def test_a_page_is_sent_while_the_next_one_is_being_read(pdf):
    reader = HeldBack()
    with (
        reading(reader) as reading_server,
        reading_server.client() as client,
        client.stream("POST", OCR, content=pdf(1, 2), headers=PDF) as reply,
    ):
        lines = reply.iter_lines()
        kinds = [json.loads(next(lines))["type"] for _ in range(2)]
        reader.release.set()
        kinds += [json.loads(line)["type"] for line in lines]
    assert kinds == ["document", "page", "page", "summary"]


def test_a_picture_is_a_document_too(reading_server, tmp_path):
    with reading(Reader({})) as other:
        content = write_image(tmp_path / "a.png", (64, 64)).read_bytes()
        lines = lines_of(other.post(OCR + "?longest_side=112", content=content, headers={"content-type": "image/png"}))
    assert lines[0]["page_count"] == 1


def test_a_page_without_a_good_answer_fails_alone(pdf):
    script = {2: [AnswerError("no words")], 3: [answer("page 3", turn=90, valid=False), answer("three")]}
    with reading(Reader(script)) as reading_server:
        lines = lines_of(reading_server.post(OCR, content=pdf(1, 2), headers=PDF))
    pages = by_number(lines)
    assert (pages[1]["status"], pages[1]["error"]) == ("valid", None)
    assert (pages[2]["status"], pages[2]["error"], pages[2]["attempts"]) == ("fallback", "no words", 8)
    assert lines[-1]["fallback_pages"] == [2]


def test_when_nobody_answers_any_more_the_last_line_says_so(pdf):
    with reading(Reader({2: [ServerUnavailableError("this server is closing")]}), at_once=1) as reading_server:
        *_, page, last = lines_of(reading_server.post(OCR, content=pdf(1, 2), headers=PDF))
    assert page["text"] == "page 1"
    assert (last["type"], last["error"]["message"]) == ("error", "this server is closing")


def many_pages(path):
    writer = PdfWriter()
    for _ in range(5):
        writer.add_blank_page(50, 50)
    writer.write(path)
    return path


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        (lambda path: path, 400, "is empty"),
        (lambda path: write_pdf(path, password="x"), 400, "is encrypted"),
        (many_pages, 413, "5 pages are requested, and this server reads 4 at most"),
    ],
)
def test_a_document_that_is_not_read_gets_one_sentence(reading_server, tmp_path, make, status, words):
    path = tmp_path / "a.pdf"
    path.write_bytes(b"")
    refused(reading_server.post(OCR, content=make(path).read_bytes(), headers=PDF), status, words)


def test_some_pages_of_a_document_that_is_too_long_are_read(reading_server, tmp_path):
    content = many_pages(tmp_path / "a.pdf").read_bytes()
    assert lines_of(reading_server.post(OCR + "?pages=5", content=content, headers=PDF))[0]["pages"] == [5]


@pytest.mark.parametrize(
    ("query", "words"),
    [("pages=0", "counted from 1"), ("pages=x", "pages must be like"), (f"pages={'1-,' * 400}", "at most 1000"),
     ("pages=9", "none of those"),
     ("figures=2", "figures must be true or false"), ("tables=xlsx", "html, markdown or csv"),
     ("headers=", "keep or drop"), ("longest_side=0", "28 to 4096"), ("longest_side=9999999", "28 to 4096"),
     ("markdown=perhaps", "true or false"),
     ("colour=red", "no option 'colour'")],
)  # fmt: skip
def test_an_option_that_is_none_is_named(reading_server, pdf, query, words):
    refused(reading_server.post(f"{OCR}?{query}", content=pdf(1), headers=PDF), 400, words)


@pytest.mark.parametrize(
    "body",
    [
        b"".join(b'--a\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n' for _ in range(1000)) + b"--a--",
        b'--a\r\nContent-Disposition: form-data; name="' + b"n" * 100_000 + b'"\r\n\r\nx\r\n--a--',
        b"--a\r\n" + b"a: b\r\n" * 50_000 + b"\r\nx\r\n--a--",
        b'--a\r\nContent-Disposition: form-data; name="pages"\r\n\r\n' + b"1-," * 50_000 + b"\r\n--a--",
        b"--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--",
    ],
    ids=["many fields", "a long name", "many headers", "a long field", "no name"],
)
def test_a_hostile_form_is_refused_and_fills_nothing(reading_server, body):
    reply = reading_server.post(OCR, content=body, headers={"content-type": "multipart/form-data; boundary=a"})
    refused(reply, 400, "the form cannot be read")
    assert reply.json()["error"]["code"] == "invalid_form"


def test_an_upload_whose_client_is_slow_lies_on_the_disk_and_not_in_memory(reading_server, pdf):
    with reading_server.client() as client:

        def pieces():
            yield b'--a\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n' + pdf(1)
            until(lambda: "olmocr_requests_coming 1.0" in client.get("/metrics").text)
            text = client.get("/metrics").text
            assert "olmocr_body_bytes 0.0" in text
            assert "olmocr_requests_in_hand 0.0" in text
            yield b"\r\n--a--\r\n"

        reply = reading_server.post(OCR, content=pieces(), headers={"content-type": "multipart/form-data; boundary=a"})
    assert lines_of(reply)[-1]["markdown"] == "page 1"


def test_documents_of_many_pages_wait_until_there_is_room_for_their_text(pdf):
    with reading(pages=2, pages_in_hand=2) as reading_server, ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(reading_server.post, OCR, content=pdf(1, 2), headers=PDF) for _ in range(4)]
        replies = [each.result() for each in asked]
    assert [lines_of(reply)[-1]["markdown"] for reply in replies] == ["page 1\npage 2"] * 4


def test_what_is_told_of_a_page_names_no_path(pdf):
    script = {1: [AnswerError("/home/me/models/x/model.safetensors is damaged")]}
    with reading(Reader(script)) as reading_server:
        page = by_number(lines_of(reading_server.post(OCR, content=pdf(1), headers=PDF)))[1]
    assert (page["error"], set(page["rejected"])) == ("… is damaged", {"… is damaged"})


def test_a_client_that_leaves_ends_all_pages_of_its_document(pdf, tmp_path):
    class Endless(Reader):
        ended = 0

        async def ask(self, request):
            self.open += 1
            try:
                await asyncio.sleep(60)
            finally:
                self.open -= 1
                self.ended += 1

    reader = Endless()
    with reading(reader, at_once=2, waiting=0) as reading_server, reading_server.client() as client:
        with client.stream("POST", OCR, content=pdf(1, 2, 3), headers=PDF) as reply:
            lines = reply.iter_lines()
            assert json.loads(next(lines))["type"] == "document"
            until(lambda: reader.open == 2)
        until(lambda: reader.ended == 2)
        until(lambda: "olmocr_requests_in_hand 0.0" in client.get("/metrics").text)
    assert reader.open == 0


def test_pages_are_counted_by_what_came_of_them(pdf):
    with reading() as reading_server, reading_server.client() as client:
        client.post(OCR, content=pdf(1, 0), headers=PDF)
        text = client.get("/metrics").text
    assert 'olmocr_pages_total{status="valid"} 1.0' in text
    assert 'olmocr_pages_total{status="blank"} 1.0' in text


MARKDOWN = {"accept": "text/markdown"}


def test_a_document_is_plain_markdown_to_whoever_wants_that(reading_server, pdf):
    content = pdf(7, 0, 300)
    reply = reading_server.post(OCR, content=content, headers=PDF | MARKDOWN)
    assert reply.headers["content-type"] == "text/markdown; charset=utf-8"
    assert (
        reply.text
        == lines_of(reading_server.post(OCR, content=content, headers=PDF))[-1]["markdown"]
        == "page 7\npage 300"
    )


def test_a_document_without_text_is_empty_markdown(reading_server, pdf):
    reply = reading_server.post(OCR, content=pdf(0, 0), headers=PDF | MARKDOWN)
    assert (reply.status_code, reply.text) == (200, "")


def test_a_client_may_name_its_formats_in_several_headers(reading_server, pdf):
    headers = [*PDF.items(), ("accept", "text/html"), ("accept", "text/markdown;q=0.5")]
    assert reading_server.post(OCR, content=pdf(7), headers=headers).text == "page 7"


def test_markdown_comes_page_by_page_in_the_order_of_the_pages(pdf):
    reader = HeldBack()
    headers = PDF | MARKDOWN
    with (
        reading(reader) as reading_server,
        reading_server.client() as client,
        client.stream("POST", OCR, content=pdf(1, 2, 3), headers=headers) as reply,
    ):
        pieces = reply.iter_text()
        first = next(pieces)
        reader.release.set()
        rest = "".join(pieces)
    assert (first, rest) == ("page 1\n", "page 2\npage 3")


def test_what_goes_wrong_before_there_is_any_markdown_has_a_status_of_its_own(reading_server, pdf):
    refused(reading_server.post(OCR, content=b"<html>", headers=PDF | MARKDOWN), 400, "web page")
    with reading(Reader({1: [ServerUnavailableError("this server is closing")]})) as other:
        refused(other.post(OCR, content=pdf(1, 2), headers=PDF | MARKDOWN), 503, "this server is closing")


def test_markdown_that_cannot_go_on_is_cut_off_and_never_looks_whole(pdf):
    script = {2: [ServerUnavailableError("this server is closing")]}
    with (
        reading(Reader(script), at_once=1) as reading_server,
        reading_server.client() as client,
        client.stream("POST", OCR, content=pdf(1, 2), headers=PDF | MARKDOWN) as reply,
    ):
        pieces = reply.iter_text()
        assert next(pieces) == "page 1\n"
        with pytest.raises(httpx.RemoteProtocolError):
            next(pieces)


@pytest.fixture
def ask_about_a_book(tmp_path):
    """Return a function that sends a book of three pages, each with *text*, and returns the reply."""
    book = write_book(tmp_path / "book.pdf", 3).read_bytes()

    def ask(text, accept="*/*", limits=None, **options):
        with reading(Model(answer(text)), **(limits or {})) as server:
            return server.post(OCR, content=book, headers=PDF | {"accept": accept}, params=options)

    return ask


def links_in(text):
    return re.findall(r"\]\(([^()]*)\)", text)


def test_a_pages_figures_follow_it_and_its_text_leads_to_them(ask_about_a_book):
    _, page, file, last = lines_of(ask_about_a_book(FIGURE, pages="2", figures="true"))
    assert links_in(page["text"]) == links_in(last["markdown"]) == page["files"] == [file["name"]]
    assert {name: file[name] for name in ("type", "page_number", "kind", "name", "media_type")} == {
        "type": "file", "page_number": 2, "kind": "figure", "name": "page-0002-figure-1.png", "media_type": "image/png"
    }  # fmt: skip
    with Image.open(io.BytesIO(base64.b64decode(file["base64"], validate=True))) as picture:
        assert picture.size == (644, 644)


def test_files_come_as_events_too(ask_about_a_book):
    reply = ask_about_a_book(FIGURE, "text/event-stream", pages="1", figures="1")
    events = [event.split("\n") for event in reply.text.removesuffix("\n\n").split("\n\n")]
    assert [name for name, _ in events] == [f"event: {kind}" for kind in ("document", "page", "file", "summary")]
    assert json.loads(events[2][1].removeprefix("data: "))["base64"].startswith("iVBORw0KGgo")


def test_tables_come_as_files_of_csv_or_as_markdown(ask_about_a_book):
    _, page, file, _ = lines_of(ask_about_a_book(TABLE, pages="1", tables="csv"))
    assert TABLE in page["text"]
    assert links_in(page["text"]) == [file["name"]] == ["page-0001-table-1.csv"]
    assert (file["media_type"], base64.b64decode(file["base64"])) == ("text/csv", b"Year,Sum\r\n2024,'=1|2\r\n")
    assert "| Year | Sum |" in ask_about_a_book(TABLE, "text/markdown", tables="markdown").text


def test_running_heads_are_dropped_from_each_page_as_it_is_sent(ask_about_a_book):
    text = "Annual Report\n\nText"
    _, *pages, last = lines_of(ask_about_a_book(text, headers="drop"))
    assert [(page["text"], page["dropped_lines"]) for page in pages] == [("Text", ["Annual Report"])] * 3
    assert last["markdown"] == "Text\nText\nText"
    assert ask_about_a_book(text, "text/markdown", headers="drop").text == last["markdown"]


def test_pages_that_are_to_be_as_they_were_written_say_nothing_of_files(ask_about_a_book):
    for page in lines_of(ask_about_a_book(FIGURE, figures="false"))[1:-1]:
        assert links_in(page["text"]) == ["page_512_1024_512_512.png"]
        assert not {"files", "left_as_is", "dropped_lines"} & page.keys()


@pytest.mark.parametrize("options", [{"figures": "true"}, {"tables": "csv"}])
def test_files_are_refused_by_name_where_the_answer_is_markdown(ask_about_a_book, options):
    (name,) = options
    reply = ask_about_a_book(FIGURE, "text/markdown", **options)
    refused(reply, 400, f"{name}=", "text/markdown cannot contain")
    assert reply.json()["error"]["param"] == name


def test_figures_that_are_not_believed_or_too_large_are_told(ask_about_a_book):
    text = f"![a](page_../../etc/passwd.png) ![b](page_0_0_99999_9.png) {FIGURE}"
    limits = {"figure_bytes": 1}
    _, page, last = lines_of(ask_about_a_book(text, pages="3", figures="true", limits=limits))
    assert page["text"] == last["markdown"] == text
    assert page["files"] == []
    assert [(each["source"], each["page_number"]) for each in page["left_as_is"]] == [("the document", 3)] * 3
    assert [each["why"].split(" is ")[0] for each in page["left_as_is"]] == links_in(text)
    assert "more than" in page["left_as_is"][-1]["why"]
