import pytest
import torch

from medexp.errors import ConfigurationError
from medexp.inference.decisions import Sigmoid, Softmax, decision_from_json
from medexp.inference.ensembling import combine
from tests.synthetic.segmentation import CONTRACT


def models(count=3):
    """Return what three models say of four pixels; the first may be overwritten by who averages."""
    said = ([0.875, 0.6, 0.4, 0.5], [0.2, 0.7, 0.3, 0.5], [0.125, 0.1, 0.9, 0.5])
    return [torch.tensor([values]) for values in said[:count]]


def test_sigmoid_decides_above_its_threshold_only():
    probabilities = torch.tensor([[[0.0, 0.5, 0.5001, 1.0]]])
    assert Sigmoid(0.5).decide(probabilities).tolist() == [[0, 0, 1, 1]]
    assert Sigmoid(0.9).decide(probabilities).tolist() == [[0, 0, 0, 1]]
    assert Sigmoid(0.5).decide(probabilities).dtype == torch.uint8


def test_softmax_takes_the_largest_and_the_lower_on_a_tie():
    probabilities = torch.tensor([[0.4, 0.2], [0.4, 0.5], [0.2, 0.3]])
    assert Softmax().decide(probabilities).tolist() == [0, 1]


def test_background_is_beyond_doubt():
    for decision in (Softmax(),):
        logits = torch.tensor(decision.background(CONTRACT))[:, None]
        assert decision.decide(decision.probabilities(logits)).item() == 0
    logits = torch.tensor(Sigmoid(0.5).background(CONTRACT))[:, None]
    assert Sigmoid(0.5).probabilities(logits).item() < 1e-7


def test_several_labels_need_softmax():
    assert Softmax().num_outputs(CONTRACT) == len(CONTRACT.labels) + 1
    with pytest.raises(ConfigurationError, match="expected Softmax for several labels"):
        Sigmoid(0.5).num_outputs(CONTRACT)


def test_a_threshold_suits_one_output_only():
    assert Sigmoid(0.5).at(0.3) == Sigmoid(0.3)
    with pytest.raises(ConfigurationError, match=r"predict\.threshold"):
        Softmax().at(0.3)


@pytest.mark.parametrize("decision", [Softmax(), Sigmoid(0.37)])
def test_what_a_checkpoint_keeps_comes_back(decision):
    assert decision_from_json(decision.to_json()) == decision
    assert decision_from_json(None) == Softmax()


def test_average():
    joined, decision = combine(models(), Sigmoid(0.5), "average")
    assert joined[0].tolist() == pytest.approx([0.4, 1.4 / 3, 1.6 / 3, 0.5])
    assert decision.decide(joined).tolist() == [0, 0, 1, 0]


def test_vote():
    joined, decision = combine(models(), Sigmoid(0.65), "vote")
    assert joined[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])
    joined, decision = combine(models(), Sigmoid(0.35), "vote")
    assert joined[0].tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1.0])
    assert decision.decide(joined).tolist() == [0, 1, 1, 1]
    even, decision = combine(models(2), Sigmoid(0.65), "vote")
    assert decision.decide(even).tolist() == [0, 0, 0, 0]  # half is not more than half


def test_best_confidence():
    joined, _ = combine(models(), Sigmoid(0.5), "best_confidence")
    assert joined[0].tolist() == pytest.approx([0.875, 0.1, 0.9, 0.5])  # 0.875 against 0.125: the first wins
    joined, _ = combine(models(), Sigmoid(0.8), "best_confidence")
    assert joined[0, 0].item() == pytest.approx(0.125)  # farther from 0.8 on its side than 0.875 on its own


def test_votes_and_confidence_of_several_labels():
    first = torch.tensor([[0.5, 0.1], [0.3, 0.6], [0.2, 0.3]])
    second = torch.tensor([[0.1, 0.2], [0.2, 0.4], [0.7, 0.4]])
    joined, _ = combine([first, second], Softmax(), "vote")
    assert joined.tolist() == [[0.5, 0.0], [0.0, 1.0], [0.5, 0.0]]
    joined, decision = combine([first, second], Softmax(), "best_confidence")
    assert decision.decide(joined).tolist() == [2, 1]


@pytest.mark.parametrize("how", ["average", "vote", "best_confidence"])
def test_nothing_to_combine(how):
    with pytest.raises(ValueError, match="got none"):
        combine([], Sigmoid(0.5), how)
