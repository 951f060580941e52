"""VGG16's features: torchvision's numbers, from a local file only, and constant."""

import hashlib

import pytest
import torch

from medexp.errors import CheckpointMismatchError, ConfigurationError
from medexp.networks.vgg import VggFeatures


@pytest.fixture(scope="module")
def theirs():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    return torchvision.models.vgg16(weights=None).features[:16].eval()


@pytest.fixture
def file(theirs, tmp_path):
    path = tmp_path / "vgg16.pth"
    torch.save({f"features.{name}": value for name, value in theirs.state_dict().items()}, path)
    return path


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_features_are_torchvisions(theirs, file):
    picture = torch.rand(2, 1, 24, 20, generator=torch.Generator().manual_seed(0))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    colored = (picture - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
    found = VggFeatures(path=file, sha256=sha256_of(file), num_blocks=3)(picture)
    for features, last in zip(found, (4, 9, 16), strict=True):
        assert torch.allclose(features, theirs[:last](colored), atol=1e-5)


def test_weights_are_neither_trained_nor_saved(file):
    features = VggFeatures(path=file, sha256=sha256_of(file), num_blocks=2)
    assert list(features.parameters()) == []
    assert features.state_dict() == {}


def test_refuses_a_file_of_another_hash(file):
    with pytest.raises(CheckpointMismatchError, match="expected sha256 0000"):
        VggFeatures(path=file, sha256="0" * 64, num_blocks=3)


def test_refuses_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="expected a local file"):
        VggFeatures(path=tmp_path / "none.pth", sha256="0" * 64, num_blocks=3)


def test_refuses_a_file_of_another_network(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 1, 3, 3)}, path)
    with pytest.raises(CheckpointMismatchError, match=r"features\.0\.weight of \(64, 3, 3, 3\).*got \(64, 1, 3, 3\)"):
        VggFeatures(path=path, sha256=sha256_of(path), num_blocks=1)


def test_refuses_a_file_that_ends_too_early(file):
    with pytest.raises(CheckpointMismatchError, match=r"features\.17\.weight.*got nothing"):
        VggFeatures(path=file, sha256=sha256_of(file), num_blocks=4)


def test_refuses_blocks_that_there_are_not(file):
    with pytest.raises(ConfigurationError, match="expected 1 to 5, got 6"):
        VggFeatures(path=file, sha256=sha256_of(file), num_blocks=6)
