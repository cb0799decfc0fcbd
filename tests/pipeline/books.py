"""A book with a figure and running heads, made on the spot, and what a model may say of its pages."""

from pypdf import PdfWriter
from pypdf.generic import DictionaryObject, StreamObject
from pypdf.generic import NameObject as Name

TABLE = "<table><tr><th>Year</th><th>Sum</th></tr><tr><td>2024</td><td>=1|2</td></tr></table>"
FIGURE = "![A blue square](page_512_1024_512_512.png)"


def write_book(path, pages=1, rotate=0):
    """Write a PDF of 512 by 1024 points: a running head, a page number, and a blue square a little below the middle."""
    writer = PdfWriter()
    font = DictionaryObject({Name("/Type"): Name("/Font"), Name("/Subtype"): Name("/Type1")})
    font[Name("/BaseFont")] = Name("/Helvetica")
    resources = DictionaryObject({Name("/Font"): DictionaryObject({Name("/F"): font})})
    for number in range(1, pages + 1):
        page = writer.add_blank_page(512, 1024).rotate(rotate)
        drawing = StreamObject()
        texts = {(200, 990): "Annual Report", (250, 20): f"{number}", (100, 800): "The text of the page."}
        shown = [f"BT /F 12 Tf {x} {y} Td ({text}) Tj ET" for (x, y), text in texts.items()]
        # The square begins 256 points from the left and 512 from above: twice that in a picture of 2048 pixels.
        square = "0 0 1 rg 256 256 256 256 re f 1 1 0 rg 356 356 60 60 re f 0 g"
        drawing.set_data(" ".join([square, *shown]).encode())
        page[Name("/Contents")], page[Name("/Resources")] = writer._add_object(drawing), resources
    writer.write(path)
    return path
