"""Cards that the tests make and look at."""

from markdown_it import MarkdownIt

from olmocr.publish.card import Variant, make_card
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.front_matter import find_facts


def variant(folder, title="org/tiny-8bit"):
    return Variant(title, read_reports(folder))


def card_of(folder, siblings=(), **facts):
    this = variant(folder)
    return make_card(this, find_facts(this.reports.conversion, **facts), [each.row for each in siblings])


def rendered(markdown):
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).disable("linkify").render(markdown)
