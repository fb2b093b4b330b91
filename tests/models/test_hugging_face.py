"""Models of transformers from a folder, and what they take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur import models
from secateur._errors import FileError, InputError, UsageError, WeightsError

transformers = pytest.importorskip("transformers")
SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 1}


@pytest.fixture(autouse=True)
def _no_bars():
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def bert() -> Any:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=64, max_position_embeddings=32, **SMALL)
    ).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bert().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_folder_with_weights(folder: Path):
    model: Any = models.build(f"hf:{folder}").eval()
    want = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = models.example_inputs(model)
    assert inputs["input_ids"].shape == (1, 5)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, want(**inputs).logits)
    assert models.carries_weights(f"hf:{folder}")
    assert models.default_input_shape(f"hf:{folder}") is None


def test_a_folder_without_weights(folder: Path):
    (folder / "model.safetensors").unlink()
    assert not models.carries_weights(f"hf:{folder}")
    model: Any = models.build(f"hf:{folder}", num_classes=7)
    assert model.classifier.out_features == 7


def test_weights_for_another_number_of_classes(folder: Path):
    model: Any = models.build(f"hf:{folder}", num_classes=7)
    assert model.classifier.out_features == 7


def test_names_that_lead_nowhere(folder: Path):
    for ask in (models.build, models.default_input_shape):
        with pytest.raises(FileError, match=r"'hf:no/such' is neither a folder with a config\.json"):
            ask("hf:no/such")
    with pytest.raises(FileError, match=r"has no config\.json"):
        models.build(f"hf:{folder.parent}")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMiracles"]}))
    with pytest.raises(UsageError, match="has no BertForMiracles"):
        models.build(f"hf:{folder}")
    (folder / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json cannot be used"):
        models.build(f"hf:{folder}")


def test_weights_that_cannot_be_trusted(folder: Path):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(WeightsError, match="could not be loaded"):
        models.build(f"hf:{folder}")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="a pickle"):
        models.build(f"hf:{folder}")


def test_weights_that_would_be_made_up(tmp_path: Path):
    bert().bert.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(WeightsError, match=r"lack 2 of BertForSequenceClassification: classifier\.bias"):
        models.build(f"hf:{tmp_path}")


def test_no_network_is_said(monkeypatch: pytest.MonkeyPatch):
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    with pytest.raises(WeightsError, match="is there a network"):
        models.build("hf:no/such", pretrained=True)


def test_images_and_their_shape(tmp_path: Path):
    config = transformers.ViTConfig(**SMALL, image_size=8, patch_size=4, num_channels=1, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    assert models.default_input_shape(f"hf:{tmp_path}") == (1, 8, 8)
    model: Any = models.build(f"hf:{tmp_path}")
    assert models.example_inputs(model)["pixel_values"].shape == (1, 1, 8, 8)
    assert models.example_inputs(model, (4, 1, 8, 8))["pixel_values"].shape == (4, 1, 8, 8)


def test_text_of_a_given_length_and_two_sided_models():
    tokens = models.example_inputs(bert(), (2, 12))["input_ids"]
    assert tokens.shape == (2, 12)
    assert int(tokens.max()) < 64
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    inputs = models.example_inputs(t5)
    assert set(inputs) == {"input_ids", "decoder_input_ids"}
    t5(**inputs)


def test_speech_is_as_long_as_the_model_wants():
    config = transformers.WhisperConfig(
        vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=8, max_source_positions=10,
        max_target_positions=10, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    inputs = models.example_inputs(model)
    assert inputs["input_features"].shape == (1, 8, 20)
    model(**inputs)


def test_an_input_of_an_unknown_kind():
    class Odd(torch.nn.Module):
        main_input_name = "smells"
        config = transformers.BertConfig()

    with pytest.raises(InputError, match="Odd takes 'smells'"):
        models.example_inputs(Odd())
    assert models.example_inputs(Odd(), (1, 3))["smells"].shape == (1, 3)
