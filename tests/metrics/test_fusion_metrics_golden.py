"""The fusion metrics against values of independent programs, on three synthetic pairs and three fused images of each.

`tests/golden/fusion_metrics.json` names the program behind every value and states the tolerance.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from scanfuse.metrics.fusion import METRICS, score
from scanfuse.metrics.fusion.fmi import fmi

GOLDEN = Path(__file__).parents[1] / "golden"
META = json.loads((GOLDEN / "fusion_metrics.json").read_text(encoding="utf-8"))
VALUES = META["values"]
STEMS = sorted(VALUES)

# our key -> (name in the file, the golden value of a fused image from its entries)
STANDARD = {
    "psnr": ("PSNR", lambda v: 10 * math.log10(255**2 / v["MSE.cddfuse"])),
    "ssim": ("SSIM", lambda v: (v["SSIM_A.skimage_gauss"] + v["SSIM_B.skimage_gauss"]) / 2),
    "ms_ssim": ("MS-SSIM", lambda v: (v["MSSSIM_A.piq"] + v["MSSSIM_B.piq"]) / 2),
    "fsim": ("FSIM", lambda v: (v["FSIM_A.zhang_FeatureSIM_m"] + v["FSIM_B.zhang_FeatureSIM_m"]) / 2),
    "fmi": ("FMI", lambda v: v["FMI_none.octave_port"]),
    "en": ("EN", lambda v: v["EN.skimage"]),
    "mi": ("MI", lambda v: v["MI_A.sklearn_bits"] + v["MI_B.sklearn_bits"]),
    "nmi": ("NMI", lambda v: v["NMI_A.sklearn_arithmetic"] + v["NMI_B.sklearn_arithmetic"]),
    "sd": ("SD", lambda v: v["SD.cddfuse"]),
    "sf": ("SF", lambda v: v["SF.cddfuse"]),
    "ag": ("AG", lambda v: v["AG.cddfuse"]),
    "cc": ("CC", lambda v: v["CC.cddfuse"]),
    "scd": ("SCD", lambda v: v["SCD.cddfuse"]),
    "vif": ("VIF", lambda v: v["VIFp_A.cddfuse"] + v["VIFp_B.cddfuse"]),
    "qabf": ("Qabf", lambda v: v["Qabf.cddfuse"]),
    "nabf": ("Nabf", lambda v: v["Nabf.lft_code_called_as_f_a_b"]),
}
# our key -> value against one source alone, which is our metric with that source given twice
PER_SOURCE = {
    "psnr": lambda v, s: v[f"PSNR_{s}.skimage"],
    "ssim": lambda v, s: v[f"SSIM_{s}.skimage_gauss"],
    "ms_ssim": lambda v, s: v[f"MSSSIM_{s}.piq"],
    "fsim": lambda v, s: v[f"FSIM_{s}.zhang_FeatureSIM_m"],
    "mi": lambda v, s: 2 * v[f"MI_{s}.sklearn_bits"],
    "nmi": lambda v, s: 2 * v[f"NMI_{s}.sklearn_arithmetic"],
    "cc": lambda v, s: v[f"CC_{s}.numpy"],
    "vif": lambda v, s: 2 * v[f"VIFp_{s}.cddfuse"],
}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "fusion_metrics.npz") as file:
        return {name: file[name] for name in file}


def _images(arrays, stem):
    pair = stem.split("_")[0]
    return arrays[stem], arrays[f"{pair}_ct"], arrays[f"{pair}_mri"]


def _approx(value, name):
    tolerance = META["metrics"][name]["tolerance"]
    return pytest.approx(value, abs=tolerance.get("abs", 0.0), rel=tolerance.get("rel", 0.0), nan_ok=False)


def test_the_golden_file_is_complete():
    assert len(STEMS) == 9
    assert set(STANDARD) == set(METRICS)
    assert len(METRICS) == 16


@pytest.mark.parametrize("stem", STEMS)
def test_every_metric_equals_the_standard_golden_value(arrays, stem):
    measured = score(*_images(arrays, stem))
    assert list(measured) == list(METRICS)
    assert {type(number) for number in measured.values()} == {float}  # written to JSON as they are
    for key, (name, golden) in STANDARD.items():
        assert measured[key] == _approx(golden(VALUES[stem]), name), key


@pytest.mark.parametrize("stem", ["phd1_max", "phd2_lap", "phd3_avg"])
@pytest.mark.parametrize("letter", ["A", "B"])
def test_each_source_alone_equals_its_golden_value(arrays, stem, letter):
    fused, a, b = _images(arrays, stem)
    source = a if letter == "A" else b
    for key, golden in PER_SOURCE.items():
        assert METRICS[key].function(fused, source, source) == _approx(
            golden(VALUES[stem], letter), STANDARD[key][0]
        ), key


@pytest.mark.parametrize("feature", ["gradient", "dct"])
@pytest.mark.parametrize("stem", STEMS)
def test_fmi_of_other_features(arrays, stem, feature):
    # 1e-6 for the DCT: the file says that programs differ by that much
    tolerance = 1e-6 if feature == "dct" else META["metrics"]["FMI"]["tolerance"]["abs"]
    golden = VALUES[stem][f"FMI_{feature}.octave_port"]
    assert fmi(*_images(arrays, stem), feature=feature) == pytest.approx(golden, abs=tolerance)
