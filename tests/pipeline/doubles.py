"""Stand-ins that are passed in: models that answer from a script, and small documents made on the spot."""

import asyncio

from PIL import Image, ImageDraw
from pypdf import PdfWriter
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    NumberObject,
    RectangleObject,
    StreamObject,
    TextStringObject,
)
from pypdf.generic import NameObject as Name

from olmocr.page import ModelResponse

BLANK = "null"


def answer(
    text="Hello", *, valid=True, turn=0, language="en", finish_reason="stop", input_tokens=100, output_tokens=20
):
    """Return a whole answer in olmOCR's format."""
    front_matter = (
        f"---\nprimary_language: {language}\nis_rotation_valid: {valid}\nrotation_correction: {turn}\n"
        f"is_table: False\nis_diagram: False\n---\n{text}"
    )
    return ModelResponse(front_matter, finish_reason, input_tokens, output_tokens)


class Model:
    """Answers its script in order, the last line for ever, and remembers what it was asked."""

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []

    async def ask(self, request):
        self.requests.append(request)
        response = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(response, BaseException):
            raise response
        return response


class Reader:
    """Reads the numbers of pages that :func:`write_numbered_pdf` made, and tells them: "page 7".

    *script* has what else comes for a number, in order, the last for ever. *asked* are the numbers in order, and
    *most_at_once* how many questions were open at a time. Nothing is answered before *together* of them are open; then
    there is a moment for one too many.
    """

    def __init__(self, script=(), seconds=0.0, together=1):
        self.script = {number: list(steps) for number, steps in dict(script).items()}
        self.seconds = seconds
        self.together = together
        self.asked = []
        self.open = self.most_at_once = 0
        self.are_together = asyncio.Event()

    async def ask(self, request):
        number = number_of(request.image.pixels)
        self.asked.append(number)
        self.open += 1
        self.most_at_once = max(self.most_at_once, self.open)
        try:
            if self.open == self.together > 1 and not self.are_together.is_set():
                await asyncio.sleep(0.05)
            if self.open >= self.together:
                self.are_together.set()
            await self.are_together.wait()
            await asyncio.sleep(self.seconds)
        finally:
            self.open -= 1
        steps = self.script.get(number, [answer(f"page {number}")])
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, BaseException):
            raise step
        return step


_BITS = 16


def write_numbered_pdf(path, numbers):
    """Write a PDF with a page for each number from 1 to 65535, in black squares, that a Reader reads; 0 is blank."""
    kids = [(4 + 2 * at, 5 + 2 * at) for at in range(len(numbers))]
    parts = [b"%PDF-1.4\n", b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"]
    names = " ".join(f"{page} 0 R" for page, _ in kids)
    parts.append(f"2 0 obj<</Type/Pages/Kids[{names}]/Count {len(kids)}/MediaBox[0 0 64 64]>>endobj\n".encode())
    for (page, content), number in zip(kids, numbers, strict=True):
        squares = [at for at in range(_BITS) if number >> at & 1]
        drawing = "0 g " + " ".join(f"{16 * (at % 4)} {16 * (at // 4)} 16 16 re f" for at in squares)
        parts.append(f"{page} 0 obj<</Type/Page/Parent 2 0 R/Contents {content} 0 R>>endobj\n".encode())
        parts.append(f"{content} 0 obj<</Length {len(drawing)}>>stream\n{drawing}\nendstream endobj\n".encode())
    parts.append(b"trailer<</Root 1 0 R>>\n%%EOF\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts))
    return path


def number_of(pixels):
    """Return the number on a page, whatever its size."""
    side = pixels.width / 4
    places = [(int((at % 4 + 0.5) * side), int((3.5 - at // 4) * side)) for at in range(_BITS)]
    return sum(1 << at for at, place in enumerate(places) if pixels.getpixel(place)[0] < 128)


def write_pdf(path, pages=1, size=(612, 792), password=None, rotate=0, blank=False):
    """Write a PDF whose pages have a black bar each, or nothing; what it is called makes its bytes its own."""
    writer = PdfWriter()
    writer.add_metadata({"/Title": str(path)})
    for _ in range(pages):
        page = writer.add_blank_page(*size).rotate(rotate)
        if not blank:
            bar = StreamObject()
            bar.set_data(f"0 g {size[0] / 4} {size[1] / 2} {size[0] / 2} {size[1] / 20} re f".encode())
            page[Name("/Contents")] = writer._add_object(bar)
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write(path)
    return path


def write_form(path, value):
    """Write a PDF with one text field that was filled in, as viewers save it."""
    writer = PdfWriter()
    page = writer.add_blank_page(612, 792)
    font = DictionaryObject({Name("/Type"): Name("/Font"), Name("/Subtype"): Name("/Type1")})
    font[Name("/BaseFont")] = Name("/Helvetica")
    fonts = DictionaryObject({Name("/Font"): DictionaryObject({Name("/Helv"): font})})
    look = StreamObject()
    look.set_data(f"/Tx BMC BT /Helv 40 Tf 0 g 5 10 Td ({value}) Tj ET EMC".encode())
    look[Name("/Type")], look[Name("/Subtype")] = Name("/XObject"), Name("/Form")
    look[Name("/BBox")], look[Name("/Resources")] = RectangleObject((0, 0, 400, 60)), fonts
    field = DictionaryObject(
        {
            Name("/Type"): Name("/Annot"),
            Name("/Subtype"): Name("/Widget"),
            Name("/FT"): Name("/Tx"),
            Name("/T"): TextStringObject("name"),
            Name("/V"): TextStringObject(value),
            Name("/DA"): TextStringObject("/Helv 40 Tf 0 g"),
            Name("/Rect"): RectangleObject((100, 500, 500, 560)),
            Name("/F"): NumberObject(4),
            Name("/AP"): DictionaryObject({Name("/N"): writer._add_object(look)}),
        }
    )
    reference = writer._add_object(field)
    page[Name("/Annots")] = ArrayObject([reference])
    form = DictionaryObject({Name("/Fields"): ArrayObject([reference]), Name("/DR"): fonts})
    writer._root_object[Name("/AcroForm")] = form
    writer.write(path)
    return path


def write_image(path, size=(200, 100), **options):
    """Write a picture with a black top left corner."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 4, size[1] // 4), fill="black")
    image.save(path, **options)
    return path
