"""What the tests of uploads convert."""

from olmocr.conversion.convert import plan_targets
from olmocr.conversion.recipe import find_recipe
from olmocr.hub.find import find_settings


def targets(source, *recipes, output, method="fit"):
    return plan_targets(find_settings(str(source), None), [find_recipe(name) for name in recipes], method, output)
