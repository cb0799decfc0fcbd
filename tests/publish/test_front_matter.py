"""The front matter of a card is what the Hub reads."""

import pytest
from huggingface_hub import ModelCard

from olmocr.errors import UsageError
from tests.publish.cards import card_of
from tests.publish.samples import change_report, model_copy

OLMOCR_2 = "allenai/olmOCR-2-7B-1025"


def test_the_front_matter_is_what_the_hub_reads(tiny, tmp_path):
    folder = model_copy(tiny, tmp_path / "model")
    change_report(folder, lambda report: report["source"].update(name=OLMOCR_2))
    card = ModelCard(card_of(folder))
    assert card.data.to_dict() == {
        "language": ["en"],
        "license": "apache-2.0",
        "library_name": "mlx",
        "pipeline_tag": "image-text-to-text",
        "base_model": OLMOCR_2,
        "base_model_relation": "quantized",
        "datasets": ["allenai/olmOCR-mix-1025"],
        "tags": ["mlx", "mlx-vlm", "ocr", "olmocr", "pdf", "apple-silicon", "8-bit", "quantized"],
    }
    assert "model-index" not in card.content
    assert f"[allenai/olmOCR-2-7B-1025](https://huggingface.co/{OLMOCR_2})" in card.text
    assert "olmOCR 2: Unit Test Rewards" in card.text


def test_a_source_that_is_not_a_repository_has_no_base_model_and_a_license_only_if_one_is_stated(tiny):
    data = ModelCard(card_of(tiny)).data.to_dict()
    assert not {"base_model", "base_model_relation", "license", "language"} & set(data)
    assert "License: not stated" in card_of(tiny)
    assert ModelCard(card_of(tiny, license_id="mit")).data.license == "mit"
    assert ModelCard(card_of(tiny, base_model="org/base")).data.base_model == "org/base"


@pytest.mark.parametrize("facts", [{"base_model": "a/b/c"}, {"base_model": "x: y"}, {"license_id": "MIT\nfoo: bar"}])
def test_a_base_model_or_license_that_the_hub_would_not_take_is_refused(facts, tiny):
    with pytest.raises(UsageError, match=r"--(base-model|license) "):
        card_of(tiny, **facts)
