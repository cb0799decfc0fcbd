"""What the tests of a converted folder compare it with."""

from olmocr.conversion.convert import convert as convert_all
from olmocr.conversion.convert import plan_targets
from olmocr.conversion.recipe import find_recipe
from olmocr.model_folder import ModelFolder


def converted_by(source, output, recipe="4bit", method="fit"):
    return convert_all(source, recipe, output, method=method)[0]


def target(source, output):
    return plan_targets(ModelFolder(source), [find_recipe("4bit")], "fit", output)
