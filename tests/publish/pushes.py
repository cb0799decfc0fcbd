"""What tests of pushes do alike: push a folder to the loopback Hub, and look at what is there."""

from olmocr.hub.write import Hub
from olmocr.publish.card import Variant
from olmocr.publish.folder_reports import read_reports
from olmocr.publish.front_matter import find_facts
from olmocr.publish.push import Push, carry_out, plan_push
from olmocr.validate.weights.check import Check, WeightsReport
from tests.hub.hub_writes import TOKEN

REPO = "tester/tiny-8bit"
WEIGHTS = "model.safetensors"


def whole(folder):
    """Say of any folder that it is whole: loading it takes longer than all else, and is the weights' own test."""
    return WeightsReport(folder, (Check("config", True, "good"),), 1, 1, 8.0)


def plan(hub, folder, repo=REPO, check=whole, token=TOKEN, siblings=(), repositories=(), **asked):
    variant = Variant(repo, read_reports(folder))
    facts = find_facts(variant.reports.conversion)
    asked = Push(repo, siblings=repositories, **asked)
    return plan_push(asked, variant, siblings, facts, Hub(hub.endpoint, token), check)


def push(hub, folder, repo=REPO, **asked):
    return carry_out(plan(hub, folder, repo, **asked), Hub(hub.endpoint, TOKEN))


def files_of(hub, repo=REPO, revision="main"):
    return hub.repositories[repo].find(revision).files


def messages_of(hub, repo=REPO, revision="main"):
    return [commit.message.partition(" made")[0] for commit in hub.repositories[repo].branches[revision]]
