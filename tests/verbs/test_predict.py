"""The prediction engine: one pair by path or array, a folder, a run from the Hub, and clear refusals."""

import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from scanfuse import config, systems
from scanfuse.data.inputs import Fitted
from scanfuse.device import choose_device
from scanfuse.errors import UserError
from scanfuse.run import create_run
from scanfuse.verbs.predict import Ensemble, Predictor, load, predict_folder
from whole_jobs import Capture, fails

SYSTEM = "clinicalfmamba"


@pytest.fixture(scope="module")
def run(head_phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny network with weights as they were drawn."""
    system_type = systems.load(SYSTEM)
    settings = config.build(system_type.Config, config.preset(SYSTEM, "tiny"))
    system = system_type(settings)
    manifest = system.data.open(head_phantoms)
    created = create_run(tmp_path_factory.mktemp("runs") / "run", settings, manifest, Fitted(), {})
    created.save_weights(system.model.state_dict(), {"system": SYSTEM})
    return created.path


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return load(run, device="cpu")


@pytest.fixture
def pair(head_phantoms: Path) -> dict[str, Path]:
    ct = sorted(head_phantoms.rglob("CT/*.png"))[0]
    return {"ct": ct, "mri": ct.parents[1] / "MRI" / ct.name}


def test_paths_texts_and_arrays_give_one_result(predictor: Predictor, pair: dict[str, Path]) -> None:
    arrays = {name: np.asarray(PIL.Image.open(path)) for name, path in pair.items()}
    by_path = predictor.predict(**pair)
    assert by_path.id == pair["ct"].stem
    assert by_path.pixels.dtype == np.uint8
    assert by_path.pixels.shape == (48, 48)
    texts = {name: str(path) for name, path in pair.items()}
    for inputs in (texts, arrays, dict(reversed(pair.items())), {"ct": pair["ct"], "mri": arrays["mri"]}):
        assert np.array_equal(predictor.predict(**inputs).pixels, by_path.pixels)
    # The first modality of the run names the result, whatever the order of the arguments.
    assert predictor.predict(mri=pair["mri"], ct=arrays["ct"]).id == "ct"
    swapped = predictor.predict(ct=pair["mri"], mri=pair["ct"])
    assert not np.array_equal(swapped.pixels, by_path.pixels)


def test_prediction_is_the_network_on_stretched_images(predictor: Predictor, pair: dict[str, Path]) -> None:
    """The stretch, the network in evaluation mode and the range of both sources, written out."""
    values = [np.asarray(PIL.Image.open(pair[name])).astype(np.float64) for name in ("ct", "mri")]
    spans = [(x.min(), x.max()) for x in values]
    tensors = [
        torch.from_numpy(((x - low) / (high - low)).astype(np.float32))[None, None]
        for x, (low, high) in zip(values, spans, strict=True)
    ]
    assert not predictor.system.model.training
    with torch.no_grad():
        fused = predictor.system.model(*tensors)[0, 0].double().numpy()
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    expected = low + fused * (high - low)
    assert np.abs(predictor.predict(**pair).pixels - expected).max() <= 0.5 + 1e-3


def test_a_result_does_not_depend_on_earlier_ones(predictor: Predictor, pair: dict[str, Path]) -> None:
    before = predictor.predict(**pair).pixels
    predictor.predict(ct=np.zeros((33, 70), np.uint8), mri=np.ones((33, 70), np.float32))
    assert np.array_equal(predictor.predict(**pair).pixels, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mri": None}, "'mri' is missing; this run takes ct and mri"),
        ({"mr": "x.png"}, r"no input 'mr'; it takes ct and mri \(not 'mri'\?\)"),
        ({"pet": "x.png"}, "no input 'pet'; it takes ct and mri"),
        ({"mri": "nowhere.png"}, r"nowhere\.png does not exist"),
        ({"mri": np.zeros((48, 47), np.uint8)}, "must be registered and of one size"),
        ({"mri": np.zeros((48, 48, 2), np.uint8)}, "expected one grey or RGB picture"),
    ],
)
def test_wrong_inputs_are_named(
    change: dict[str, Any], message: str, predictor: Predictor, pair: dict[str, Path]
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        predictor.predict(**{**pair, **change})
    assert "\n" not in str(caught.value)


def test_a_left_out_input_is_named(predictor: Predictor, pair: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="'ct' is missing"):
        predictor.predict(mri=pair["mri"])


def test_pil_images_are_the_files_they_came_from(predictor: Predictor, pair: dict[str, Path]) -> None:
    expected = predictor.predict(**pair)
    with PIL.Image.open(pair["ct"]) as ct, PIL.Image.open(pair["mri"]) as mri:
        found = predictor.predict(ct=ct, mri=mri)
        assert found.id == expected.id  # an image that was opened knows its file
        assert np.array_equal(found.pixels, expected.pixels)
        made = predictor.predict(ct=ct.copy(), mri=mri.convert("RGB"))
        assert np.array_equal(made.pixels, expected.pixels)


def test_lists_give_one_result_each(
    predictor: Predictor, head_phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cts = sorted(head_phantoms.rglob("CT/*.png"))[:3]
    pairs = [{"ct": ct, "mri": np.asarray(PIL.Image.open(ct.parents[1] / "MRI" / ct.name))} for ct in cts]
    expected = [predictor.predict(**pair) for pair in pairs]
    found = predictor.predict(ct=[pair["ct"] for pair in pairs], mri=tuple(pair["mri"] for pair in pairs))
    assert [each.id for each in found] == [each.id for each in expected]
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(found, expected, strict=True))
    assert predictor.predict(ct=[], mri=[]) == []


def test_studies_are_computed_in_batches(bones_run: Path, bones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With views that are missing, and two of one name, which are two samples and not two pictures of one study."""
    classifier = load(bones_run, device="cpu")
    pictures = sorted(bones.rglob("image1.png"))[:20]
    a: list[Any] = [pictures[0], None, *pictures[1:19]]
    b: list[Any] = [None, PIL.Image.open(pictures[0]), *pictures[2:20]]
    expected = [classifier.predict(view_a=one, view_b=other) for one, other in zip(a, b, strict=True)]
    sizes: list[int] = []
    raw = Predictor.raw

    def counted(self: Predictor, batch: dict[str, Any]) -> list[Any]:
        sizes.append(len(batch["meta"]))
        return raw(self, batch)

    monkeypatch.setattr(Predictor, "raw", counted)
    found = classifier.predict(view_a=a, view_b=b)
    assert sizes == [8, 8, 4]  # the batch of the training
    assert [each.id for each in found] == [each.id for each in expected] == ["image1"] * 20
    np.testing.assert_allclose([r.probabilities for r in found], [r.probabilities for r in expected], atol=1e-6)
    assert len({float(each.probabilities[0]) for each in found}) > 15
    ensemble = Ensemble({"one": classifier, "two": classifier})
    (_, members), *_ = joint = ensemble.predict(view_a=a, view_b=b)
    assert [result.probabilities[0] for result, _ in joint] == pytest.approx([r.probabilities[0] for r in found])
    assert list(members) == ["one", "two"]


@pytest.mark.parametrize(
    ("ct", "mri", "message"),
    [
        (
            [1, 2],
            [1],
            "lists of one length for all inputs, or one value for each; these are ct: 2 values, mri: 1 values",
        ),
        (["x.png"], "x.png", "these are ct: 1 values, mri: one value"),
        (["no.png"], ["no.png"], "Sample 0: no.png does not exist"),
        (
            torch.zeros(4, 4),
            torch.zeros(4, 4),
            "'ct' is of the type Tensor; give a path, a PIL image or a numpy array",
        ),
        (object(), object(), "'ct' is of the type object; give"),
        (b"bytes", b"bytes", "'ct' is of the type bytes; give"),
        ({"a": 1}, {}, "'ct' is of the type dict; give"),
        ([[[1, 2], [3, 4]]], [[[1, 2], [3, 4]]], "Sample 0: The input 'ct' is of the type list; give"),
        ("nothing", "nothing", "nothing does not exist"),
        ("", "", "is a folder|does not exist"),
        (np.zeros((4, 4), bool), np.zeros((4, 4)), "given as ct holds bool; give integers or floats"),
        (np.array([["a"]]), np.zeros((1, 1)), "given as ct holds <U1; give integers or floats"),
        (np.array([[None]]), np.zeros((1, 1)), "given as ct holds object; give integers or floats"),
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 4)), "ct holds an array of shape"),
        (np.zeros(4), np.zeros(4), "ct holds an array of shape"),
        (np.zeros((0, 4)), np.zeros((0, 4)), "ct has no pixels"),
        (np.full((4, 4), np.nan), np.zeros((4, 4)), "ct holds no finite value"),
    ],
    ids=range(17),
)
def test_what_cannot_be_taken_is_one_line(predictor: Predictor, ct: Any, mri: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        predictor.predict(ct=ct, mri=mri)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_a_pil_image_whose_file_is_cut_short_is_one_line(
    predictor: Predictor, pair: dict[str, Path], tmp_path: Path
) -> None:
    """Opened without a complaint, as Pillow decodes late."""
    file = tmp_path / "x.png"
    file.write_bytes(pair["ct"].read_bytes()[:300])
    with PIL.Image.open(file) as ct, pytest.raises(UserError, match="given as ct cannot be decoded") as caught:
        predictor.predict(ct=ct, mri=pair["mri"])
    assert "\n" not in str(caught.value)


def test_a_folder_gives_a_file_per_sample(
    predictor: Predictor, head_phantoms: Path, pair: dict[str, Path], tmp_path: Path
) -> None:
    found = predict_folder(predictor, head_phantoms, tmp_path / "new" / "out")
    names = sorted(path.stem for path in head_phantoms.rglob("CT/*.png"))
    assert sorted(path.stem for path in found.files) == names
    assert (found.samples, found.failures, found.replaced) == (len(names), [], "")
    both = [f"{name}{end}.png" for name in names for end in ("", "_side_by_side")]
    assert sorted(os.listdir(tmp_path / "new" / "out")) == sorted([*both, "manifest.csv", "predictions.csv"])
    table = pd.read_csv(tmp_path / "new" / "out" / "predictions.csv", dtype=str, keep_default_na=False)
    assert [f"{name}.png" for name in table["id"]] == list(table["file"])
    assert sorted(table["id"]) == names and set(table["error"]) == {""}
    stored = np.asarray(PIL.Image.open(tmp_path / "new" / "out" / f"{pair['ct'].stem}.png"))
    assert np.array_equal(stored, predictor.predict(**pair).pixels)


def test_a_run_is_loaded_from_the_hub(
    run: Path, pair: dict[str, Path], predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what a prediction needs is asked for, and what is asked for is enough."""
    asked: list[str] = []

    def download(repo: str, *, allow_patterns: list[str]) -> str:
        asked.append(repo)
        for file in run.iterdir():
            if any(file.match(pattern) for pattern in allow_patterns):
                shutil.copy(file, tmp_path)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path.parent)
    from_hub = load("hf://someone/brain", device="cpu")
    assert asked == ["someone/brain"]
    assert not (tmp_path / "checkpoint.pt").exists()
    assert np.array_equal(from_hub.predict(**pair).pixels, predictor.predict(**pair).pixels)


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("no network\nsecond line"),
        HFValidationError("no network\nsecond line"),
        OSError("no network\nsecond line"),
    ],
)
def test_what_is_neither_a_folder_nor_on_the_hub_is_one_line(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(repo: str, **kwargs: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^hf://runs/brian cannot be had from the Hugging Face Hub: no network$"):
        load("hf://runs/brian", device="cpu")


@pytest.mark.parametrize("path", ["runs/brian", "./some/where", "/some/where", "somewhere", "a/b/c", "../b"])
@pytest.mark.parametrize("beside", [True, False])
def test_the_hub_is_asked_by_its_name_only(
    path: str, beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A mistyped folder is told so at once, whether or not there are others beside it."""
    monkeypatch.chdir(tmp_path)
    if beside:
        (tmp_path / "runs" / "brain").mkdir(parents=True)
        (tmp_path / "runs" / "brain" / "config.yaml").touch()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: pytest.fail("asked the Hub"))
    with pytest.raises(UserError, match=f"^There is no run folder {path}; ") as caught:
        load(path, device="cpu")
    message = str(caught.value)
    assert ("did you mean runs/brain?" in message) == (beside and path == "runs/brian")
    assert ("A run on the Hugging Face Hub is named hf://runs/brian." in message) == (path == "runs/brian")
    assert fails(["predict", path, "--mri", "x.png"], capsys) == message


@pytest.mark.parametrize("name", ["hf://", "hf://brain", "hf://a/b/c", "hf://../b", "hf://a/", "hf:///a/b"])
def test_names_that_the_hub_does_not_have(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: pytest.fail("asked the Hub"))
    with pytest.raises(UserError, match="must be hf://owner/name"):
        load(name, device="cpu")


def test_a_cross_validation_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "cross_validation.json").write_text("{}")
    with pytest.raises(UserError, match=r"is a cross-validation: name one of its runs, such as .*fold-0"):
        load(tmp_path, device="cpu")


def test_a_folder_of_that_name_comes_before_the_hub(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: pytest.fail("asked the Hub"))
    shutil.copytree(run, tmp_path / "runs" / "brain")
    assert load("runs/brain", device="cpu").modalities == ("ct", "mri")
    (tmp_path / "runs" / "empty").mkdir()
    with pytest.raises(UserError, match=r"not a run folder: it has no config\.yaml"):
        load("runs/empty", device="cpu")


def test_weights_of_another_network_are_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    text = (copy / "config.yaml").read_text()
    assert "  cmca: true\n" in text
    (copy / "config.yaml").write_text(text.replace("  cmca: true\n", "  cmca: false\n"))
    with pytest.raises(UserError, match=r"does not fit config\.yaml") as caught:
        load(copy, device="cpu")
    assert "cmca" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    automatic = choose_device("auto")
    assert (automatic.type != "cpu") == torch.accelerator.is_available()


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x", "meta"])
def test_a_device_that_cannot_be_used_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"The device '{name}' cannot be used: ") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
