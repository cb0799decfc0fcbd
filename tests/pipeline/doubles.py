"""Stand-ins that are passed in: a model that answers from a script, and small documents made on the spot."""

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
