"""Small valid files of every kind with some bytes changed, cut out or put in: read, or refused in one line.

The mutations are drawn from the file's name and a number, so a failure names what to repeat. Only a UserError may
come out, soon, and without a warning (warnings are errors in this suite).
"""

import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import tifffile
import torch
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless
from safetensors.torch import save_file

from scanfuse.backbones.vmamba import VMamba, VMambaConfig
from scanfuse.config import TrainConfig, build, read_yaml, write_yaml
from scanfuse.data.manifest import Manifest
from scanfuse.data.readers import SliceChoice, list_slices, read_image, write_image
from scanfuse.data.readers.dicom import position_mm
from scanfuse.errors import UserError
from scanfuse.foreign import read_json
from scanfuse.run import Run, file_digest
from scanfuse.verbs.import_weights import import_vmamba

_RANDOM = np.random.default_rng(0)
GREY = _RANDOM.integers(0, 256, (24, 20), dtype=np.uint8)
COLOUR = _RANDOM.integers(0, 256, (24, 20, 3), dtype=np.uint8)
DEEP = _RANDOM.integers(0, 65536, (24, 20, 3), dtype=np.uint16)
VOLUME = _RANDOM.integers(-100, 100, (5, 6, 7)).astype(np.int16)
SMALL = {"a": torch.ones(3, 2), "b": torch.arange(4)}


# --- valid files ----------------------------------------------------------------------------------------------------


def _png(path: Path, pixels: np.ndarray = COLOUR) -> None:
    write_image(path, pixels)


def _palette(path: Path) -> None:
    PIL.Image.fromarray(COLOUR).quantize(16).save(path, transparency=3)


def _animation(path: Path) -> None:
    PIL.Image.fromarray(GREY).save(path, save_all=True, append_images=[PIL.Image.fromarray(GREY[::-1].copy())])


def _jpeg(path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    PIL.Image.fromarray(COLOUR).save(path, exif=exif)


def _tiff(path: Path, compression: str | None = None) -> None:
    tifffile.imwrite(path, GREY, photometric="minisblack", compression=compression)


def _pages(path: Path) -> None:
    tifffile.imwrite(path, np.stack([DEEP[..., 0]] * 3), photometric="minisblack")


def _nifti(path: Path) -> None:
    image = nibabel.Nifti1Image(VOLUME, np.diag([-1.0, 2.0, 3.0, 1.0]))
    image.header.set_slope_inter(0.5, 1.0)
    nibabel.save(image, path)


def _dicom(path: Path, syntax: str = ExplicitVRLittleEndian, frames: int = 1) -> None:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PixelRepresentation = 24, 20, 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.PixelSpacing = 2, -1024, [0.5, 0.7]
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 1, 2], [1, 0, 0, 0, 1, 0]
    dataset.PixelPaddingValue = 3
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = GREY.tobytes() * frames
    if syntax == JPEGBaseline8Bit:
        packed = io.BytesIO()
        PIL.Image.fromarray(GREY).save(packed, "JPEG")
        dataset.PixelData = pydicom.encaps.encapsulate([packed.getvalue()])
    if syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(RLELossless)
    dataset.save_as(path, enforce_file_format=True)


def _csv(path: Path) -> None:
    path.write_text(
        '# note: leaky: on purpose\nid,group,split,target,ct,"mri"\n1,a,train,0.0,"ct/1.png",mri/1.png\n'
        '2,b,val,1,ct/2.png,"a ""q"""\n3,c,test,,x,\n'
    )


def _json(path: Path) -> None:
    path.write_text(json.dumps({"system": "x", "list": [1, 2.5, None, True, {"b": "ü"}], "sha": "0" * 64}))


def _vmamba() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return VMamba(VMambaConfig(dim=4, depths=(1, 1, 1, 1), d_state=1), num_classes=2).state_dict()


def _published(path: Path, zipped: bool = True) -> None:
    torch.save({"model": _vmamba(), "epoch": 3}, path, _use_new_zipfile_serialization=zipped)


def _checkpoint(path: Path) -> None:
    moments = {0: {"exp_avg": torch.ones(2)}}
    optimizer = {"state": moments, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"model": SMALL, "optimizer": optimizer, "epoch": 2, "history": [{"loss": 1.0}]}, path)


# --- their readers --------------------------------------------------------------------------------------------------


def _read_frames(path: Path) -> None:
    for one in list_slices(path, SliceChoice("frame", "all"))[:3]:
        read_image(path, slices=one)


def _read_dicom(path: Path) -> None:
    position_mm(path)
    _read_frames(path)


def _read_volume(path: Path) -> None:
    for axis in ("axial", "coronal", "sagittal"):
        for one in list_slices(path, SliceChoice.parse(f"{axis}:all"))[:1]:
            read_image(path, slices=one)


def _read_manifest(path: Path) -> None:
    assert Manifest.read(path, ("ct", "mri")).digest


def _read_settings(path: Path) -> None:
    build(TrainConfig, read_yaml(path))


def _import(path: Path) -> None:
    out = path.with_name("imported")
    for file in out.glob("*"):
        file.unlink()
    import_vmamba(path, out)


def _load_checkpoint(path: Path) -> None:
    run = Run(path.parent)
    path.replace(run.checkpoint_file)
    run.load_checkpoint()


def _load_weights(path: Path) -> None:
    run = Run(path.parent)
    path.replace(run.weights_file)
    run.save_json("run.json", {"weights_sha256": file_digest(run.weights_file)})
    run.load_weights()


Kind = tuple[Callable[[Path], None], Callable[[Path], object], int]
KINDS: dict[str, Kind] = {
    "colour.png": (_png, read_image, 60),
    "deep.png": (lambda path: _png(path, DEEP), read_image, 60),
    "palette.png": (_palette, read_image, 40),
    "animation.png": (_animation, _read_frames, 40),
    "camera.jpg": (_jpeg, read_image, 60),
    "plain.tif": (_tiff, read_image, 60),
    "deflate.tif": (lambda path: _tiff(path, "zlib"), read_image, 60),
    "pages.tif": (_pages, _read_frames, 40),
    "volume.nii": (_nifti, _read_volume, 60),
    "volume.nii.gz": (_nifti, _read_volume, 60),
    "plain.dcm": (_dicom, _read_dicom, 80),
    "frames.dcm": (lambda path: _dicom(path, frames=3), _read_dicom, 40),
    "rle.dcm": (lambda path: _dicom(path, RLELossless), _read_dicom, 40),
    "deflated.dcm": (lambda path: _dicom(path, DeflatedExplicitVRLittleEndian), _read_dicom, 40),
    "jpeg.dcm": (lambda path: _dicom(path, JPEGBaseline8Bit), _read_dicom, 40),
    "manifest.csv": (_csv, _read_manifest, 80),
    "settings.yaml": (lambda path: write_yaml(TrainConfig(), path), _read_settings, 80),
    "record.json": (_json, read_json, 80),
    "published.pth": (_published, _import, 40),
    "before_zip.pth": (lambda path: _published(path, zipped=False), _import, 40),
    "published.safetensors": (lambda path: save_file(_vmamba(), path), _import, 20),
    "checkpoint.bin": (_checkpoint, _load_checkpoint, 80),
    "weights.bin": (lambda path: save_file(SMALL, path), _load_weights, 60),
}


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Some bytes set, bits flipped, a piece cut off, out or copied; more often near the start, where headers are."""
    data = bytearray(content)
    reach = len(data) if draw.random() < 0.4 else min(len(data), 500)
    place = draw.randrange(reach)
    change = draw.choice(("set", "set", "set", "flip", "cut", "remove", "copy", "large"))
    if change == "set":
        for _ in range(draw.choice((1, 1, 2, 3, 8))):
            data[draw.randrange(reach)] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    elif change == "flip":
        data[place] ^= 1 << draw.randrange(8)
    elif change == "cut":
        del data[draw.randrange(len(data)) :]
    elif change == "remove":
        del data[place : place + draw.randrange(1, 40)]
    elif change == "copy":
        start = draw.randrange(len(data))
        data[place:place] = data[start : start + draw.randrange(1, 60)]
    else:
        data[place : place + 4] = draw.choice(
            (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4))
        )
    return bytes(data)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.timeout(60)
def test_a_mutated_file_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    write, read, times = KINDS[name]
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    read(path)
    refused = 0
    for number in range(times):
        path.write_bytes(mutated(content, random.Random(f"{name} {number}")))
        said = "read"
        start = time.perf_counter()
        try:
            read(path)
        except UserError as error:
            said = str(error)
            refused += 1
        except Exception as error:
            raise AssertionError(f"mutation {number} of {name} gave {type(error).__name__}, not one line") from error
        assert said.isprintable() and len(said) < 700, f"mutation {number}: {said!r}"
        assert time.perf_counter() - start < 10, f"mutation {number} took too long"
    assert refused > times // 10  # the mutations bite
