"""Finding and reading weights: every kind of place, nothing hostile is run, damage is refused."""

import socket
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medexp.errors import CheckpointMismatchError, ConfigurationError
from medexp.networks import weights
from medexp.networks.weights import locate_weights, read_weights
from medexp.runs.files import sha256_of

TENSORS = {"first.weight": torch.arange(6.0).view(2, 3), "first.bias": torch.tensor([1.0, -1.0])}


class Payload:
    """Leaves a mark if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def saved(path: Path, content=TENSORS) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("key", [None, "state_dict", "model", "network_weights", "model_state_dict"])
def test_reads_a_state_dict_alone_or_under_a_usual_key(tmp_path, key):
    path = saved(tmp_path / "weights.pt", TENSORS if key is None else {key: TENSORS, "epoch": 3})
    weights = read_weights(path)
    assert weights.tensors.keys() == TENSORS.keys()
    assert torch.equal(weights.tensors["first.weight"], TENSORS["first.weight"])
    assert weights.sha256 == sha256_of(path)


def test_reads_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "weights.safetensors")
    assert torch.equal(read_weights(tmp_path / "weights.safetensors").tensors["first.bias"], TENSORS["first.bias"])


def test_knows_the_contract_of_a_checkpoint_of_medexp(tmp_path):
    path = saved(
        tmp_path / "best.ckpt", {"state_dict": TENSORS, "hyper_parameters": {"contract": {"channels": ["t1"]}}}
    )
    assert read_weights(path).contract == {"channels": ["t1"]}


@pytest.mark.parametrize("place", ["tensors", "beside them", "hyperparameters"])
def test_hostile_pickle_is_never_run(tmp_path, place):
    mark = tmp_path / "mark"
    payload = Payload(mark)
    content = {
        "tensors": {**TENSORS, "extra": payload},
        "beside them": {"state_dict": TENSORS, "callbacks": payload},
        "hyperparameters": {"state_dict": TENSORS, "hyper_parameters": {"_class_path": payload}},
    }[place]
    with pytest.raises(CheckpointMismatchError, match="expected tensors and plain values only.*nothing of it was run"):
        read_weights(saved(tmp_path / "weights.pt", content))
    assert not mark.exists()


def test_hostile_bytes_of_the_old_format_are_never_run(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "weights.pt"
    torch.save({**TENSORS, "extra": Payload(mark)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointMismatchError):
        read_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_flipped_bit_is_refused_before_anything_is_deserialized(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(TENSORS, path) if suffix == ".safetensors" else saved(path)
    recorded = sha256_of(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointMismatchError, match=f"expected sha256 {recorded}, got {sha256_of(path)}"):
        read_weights(path, sha256=recorded)


def test_hash_is_compared_before_a_hostile_file_is_opened(tmp_path):
    path = saved(tmp_path / "weights.pt", Payload(tmp_path / "mark"))
    with pytest.raises(CheckpointMismatchError, match="expected sha256"):
        read_weights(path, sha256="0" * 64)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99], ids=["empty", "half", "last bytes missing"])
def test_incomplete_file_is_refused(tmp_path, suffix, kept):
    path = tmp_path / f"weights{suffix}"
    save_file(TENSORS, path) if suffix == ".safetensors" else saved(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointMismatchError, match=str(path)):
        read_weights(path)


def test_file_without_tensors_is_refused_with_its_keys(tmp_path):
    with pytest.raises(CheckpointMismatchError, match=r"expected a state dict.*\['epoch'\]"):
        read_weights(saved(tmp_path / "weights.pt", {"epoch": 3}))


@pytest.mark.parametrize("name", ["models/model.pt", "models/model.safetensors"])
def test_bundle_folder_gives_its_weights(tmp_path, name):
    (tmp_path / "models").mkdir()
    (tmp_path / name).write_bytes(b"")
    assert locate_weights(str(tmp_path)) == tmp_path / name


def test_bundles_own_configuration_is_not_read(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text('{"x": "$__import__(\'os\').abort()"}')
    saved(tmp_path / "models" / "model.pt")
    assert read_weights(locate_weights(str(tmp_path))).tensors.keys() == TENSORS.keys()


def test_folder_that_is_no_bundle_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "readme").touch()
    with pytest.raises(ConfigurationError, match=r"models/model\.pt, got \['readme'\]"):
        locate_weights(str(tmp_path))


def test_place_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"model\.weights=.*none of them"):
        locate_weights(str(tmp_path / "absent.pt"))


def test_hub_id_gives_the_file_of_the_hubs_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    revision = "a" * 40
    repository = tmp_path / "models--MONAI--some_bundle"
    target = repository / "snapshots" / revision / "models" / "model.pt"
    target.parent.mkdir(parents=True)
    saved(target)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert read_weights(locate_weights("MONAI/some_bundle")).tensors.keys() == TENSORS.keys()


def test_hub_that_cannot_be_reached_says_what_to_do(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError, match=r"model\.weights=<path>.*model\.weights=null"):
        locate_weights("MONAI/some_bundle")


def test_hub_that_never_answers_is_given_up_soon(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "_HUB_TIMEOUT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(ConfigurationError, match=r"no answer within 0\.5 s.*model\.weights=<path>"):
            locate_weights("MONAI/some_bundle")
    assert time.monotonic() - started < 3.0
