"""Shipped checkpoints load, stay small, and still give the result that they were stored with."""

import pytest
import torch
from torch import nn

from kexue_lib import checkpoints


@pytest.mark.parametrize("name", checkpoints.names())
def test_every_checkpoint_is_small_and_has_the_script_that_made_it(name):
    content, made_with = checkpoints.load(name)
    assert content
    assert {"seed", "steps", "python", "torch"} <= set(made_with)
    assert (checkpoints.FOLDER / f"{name}.py").is_file()
    for suffix, limit in ((".safetensors", checkpoints.MAX_WEIGHTS), (".json", checkpoints.MAX_TABLE)):
        file = checkpoints.FOLDER / f"{name}{suffix}"
        assert not file.exists() or file.stat().st_size <= limit


def test_weights_and_tables_come_back_as_they_went(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    weights = {"w": torch.randn(3, 4), "b": torch.zeros(2, dtype=torch.bfloat16)}
    checkpoints.save("part/weights", weights, made_with={"seed": 1})
    content, made_with = checkpoints.load("part/weights")
    assert all(torch.equal(content[k], v) and content[k].dtype == v.dtype for k, v in weights.items())
    assert made_with["seed"] == 1
    checkpoints.save("part/table", {"rows": [1, 2.5, "x"]}, made_with={})
    assert checkpoints.load("part/table")[0] == {"rows": [1, 2.5, "x"]}
    assert checkpoints.names() == ["part/table", "part/weights"]
    with pytest.raises(ValueError, match="bytes"):
        checkpoints.save("part/large", {"w": torch.zeros(600_000)}, made_with={})
    with pytest.raises(ValueError, match="part/table, part/weights"):
        checkpoints.load("part/none")


def test_tied_and_lazily_conjugated_tensors_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    z = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    content = {"z": z.conj(), "minus": z.conj().imag, "again": z, "part": z.real}
    checkpoints.save("part/z", content, made_with={})
    loaded = checkpoints.load("part/z")[0]
    assert all(torch.equal(loaded[name], value.resolve_conj().resolve_neg()) for name, value in content.items())
    tied = nn.Linear(2, 2, bias=False)
    checkpoints.save("part/tied", nn.ModuleList([tied, tied]).state_dict(), made_with={})
    assert torch.equal(checkpoints.load("part/tied")[0]["1.weight"], tied.weight)


def test_rounding_keeps_digits_and_structure():
    assert checkpoints.rounded({"a": [123456.0, 0.0, float("inf")], "b": "text"}, 2) == {
        "a": [120000.0, 0.0, float("inf")],
        "b": "text",
    }


def test_learning_curves_reach_what_they_should():
    content, made_with = checkpoints.load("attention/learning")
    curve, lookup = content["bytes"], content["retrieval"]
    assert made_with["validation"] == curve["validation"][-1]
    assert curve["validation"][-1] < 1.75 < curve["bigram"] < curve["unigram"]
    assert lookup["convolution"]["accuracy"]["8"] > 0.995
    assert lookup["convolution"]["accuracy"]["24"] > lookup["no convolution"]["accuracy"]["8"]


@pytest.mark.slow
def test_the_stored_lookup_result_comes_out_again():
    from kexue_lib.checkpoints.attention.learning import LOOKUP_STEPS, lookup_run

    stored = checkpoints.load("attention/learning")[0]["retrieval"]["convolution"]
    run = lookup_run(3, 64, 2, LOOKUP_STEPS)
    assert run["parameters"] == stored["parameters"]
    assert run["accuracy"]["8"] == pytest.approx(stored["accuracy"]["8"], abs=0.01)
    # Not bit for bit: processors sum in different orders.
    assert run["loss"][:5].tolist() == pytest.approx(stored["loss"][:5], rel=1e-2)
