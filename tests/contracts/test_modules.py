"""What every layer and every fusion block holds, run over the listing of their folders."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import scanfuse
from scanfuse.fusion.average import AverageFusion
from scanfuse.fusion.channel_attention import CMCA
from scanfuse.fusion.channel_swap import ChannelSwapFusion
from scanfuse.fusion.concat import ConcatFusion
from scanfuse.fusion.cross_attention import CrossAttention
from scanfuse.fusion.cross_mamba import CrossMambaBlock, CrossMambaFusion
from scanfuse.fusion.cross_view import CrossViewFusion
from scanfuse.fusion.dssf import DSSF, DSSFChain
from scanfuse.fusion.dual_level import AttentionPooling, GatedCrossModal, MeanPooling, SliceAttention, SlicePlace
from scanfuse.fusion.fusion_mamba_block import FusionMambaBlock
from scanfuse.fusion.local_global import LocalGlobalGate
from scanfuse.fusion.source_details import GatedBlock, SourceDetails
from scanfuse.fusion.sscs import SSCS
from scanfuse.layers.axial import AxialAttention, AxisAttention
from scanfuse.layers.conv import DGCB, EnlargingConv
from scanfuse.layers.detect_head import DetectHead
from scanfuse.layers.drop_path import DropPath
from scanfuse.layers.linear import Linear
from scanfuse.layers.mamba import BidirectionalMamba, LatentMamba, Mamba, RouteMixer
from scanfuse.layers.pan import PAN
from scanfuse.layers.route_conv import RouteConv
from scanfuse.layers.ss2d import PLAIN, SS2D
from scanfuse.layers.tabular import TableEncoder, TableTokens
from scanfuse.layers.vim import VimBlock
from scanfuse.layers.vss import MLP, VSSBlock
from scanfuse.layers.yolo import C3, SPPF, Bottleneck, C2f, ConvNormAct
from scanfuse.ops import routes

MAP = (2, 5, 6, 16)
VOLUME = (2, 2, 3, 4, 16)
SEQUENCE = (2, 30, 16)
IMAGE = (2, 16, 5, 6)
PIXELS, WIDE = (2, 1, 8, 10), (2, 16, 8, 10)
VOXELS, DEEP = (2, 1, 4, 6, 8), (2, 16, 4, 6, 8)
CUBOID = (2, 16, 3, 4, 5)
LEVELS = [(2, 16, 8, 12), (2, 32, 4, 6), (2, 64, 2, 3)]
CROSS = routes.cross(5, 6)
TABLE = torch.tensor([[[0.5, 1], [3, 1], [0, 0], [2, 1]], [[0, 0], [0, 0], [-1.5, 1], [1, 1.0]]])
SEEN = torch.tensor([[True, True, False, True, True], [True, False, False, False, True]])

# For every file of the two folders, its modules: a constructor, the shapes of the inputs, further arguments.
Case = tuple[Callable[[], nn.Module], list[tuple[int, ...]], list[Tensor]]
MEMBERS: dict[str, list[Case]] = {
    "layers.axial": [
        (lambda: AxisAttention(16, heads=4, reach=3), [SEQUENCE], []),
        (lambda: AxialAttention(16, heads=2), [MAP], []),
    ],
    "layers.conv": [
        (lambda: DGCB(16, dilation=3), [IMAGE], []),
        (lambda: DGCB(16, norm="group"), [IMAGE], []),
        (lambda: DGCB(16, norm="group", num_dims=3, pyramid=False), [CUBOID], []),
        (lambda: EnlargingConv(16, 3, num_dims=2), [IMAGE], []),
        (lambda: EnlargingConv(16, 3, num_dims=3), [CUBOID], []),
    ],
    "layers.detect_head": [(lambda: DetectHead((16, 32, 64), num_classes=2), LEVELS, [])],
    "layers.drop_path": [(lambda: DropPath(0.0), [MAP], [])],
    "layers.filters": [],  # their weights are fixed
    "layers.linear": [(lambda: Linear(16, 8), [MAP], [])],
    "layers.mamba": [
        (lambda: RouteMixer(16, num_routes=4, d_state=2, dt_rank=1), [SEQUENCE], [CROSS]),
        (lambda: Mamba(16), [SEQUENCE], []),
        (lambda: BidirectionalMamba(16), [SEQUENCE], []),
        (lambda: LatentMamba(16), [MAP], []),
        (lambda: LatentMamba(16, route_set="raster"), [MAP], []),
        (lambda: LatentMamba(16, route_set="triplane6"), [VOLUME], []),
    ],
    "layers.pan": [
        (lambda: PAN((16, 32, 64), (16, 32, 64), num_blocks=1), LEVELS, []),
        (lambda: PAN((16, 32, 64), (16, 16, 32), num_blocks=2, block="c3"), LEVELS, []),
    ],
    "layers.route_conv": [(lambda: RouteConv(16, num_routes=4), [SEQUENCE], [CROSS])],
    "layers.ss2d": [(lambda: SS2D(16), [MAP], []), (lambda: SS2D(16, PLAIN), [MAP], [])],
    "layers.ssm": [],  # functions on parameters
    "layers.tabular": [
        (lambda: TableTokens((0, 3, 0, 2), 16), [], [TABLE]),
        (lambda: TableTokens((0, 0), 16), [(2, 2, 2)], []),
        (lambda: TableEncoder(16, hidden=8), [(2, 5, 16)], []),
    ],
    "layers.vim": [(lambda: VimBlock(16), [SEQUENCE], [])],
    "layers.vss": [
        (lambda: MLP(16, 32), [MAP], []),
        (lambda: VSSBlock(16), [MAP], []),
        (lambda: VSSBlock(16, options=PLAIN, mlp_ratio=4.0), [MAP], []),
    ],
    "layers.yolo": [
        (lambda: ConvNormAct(16, 8, 3, stride=2), [IMAGE], []),
        (lambda: Bottleneck(16), [IMAGE], []),
        (lambda: C2f(16, 8, num_blocks=2), [IMAGE], []),
        (lambda: C3(16, 8, num_blocks=2), [IMAGE], []),
        (lambda: SPPF(16, 8), [IMAGE], []),
    ],
    "fusion.average": [(lambda: AverageFusion(16), [MAP, MAP], [])],
    "fusion.channel_attention": [
        (lambda: CMCA(16), [IMAGE, IMAGE], []),
        (lambda: CMCA(16, num_dims=3), [CUBOID, CUBOID], []),
    ],
    "fusion.channel_swap": [(lambda: ChannelSwapFusion(16), [MAP, MAP], [])],
    "fusion.channels": [],  # a stack, nothing to learn
    "fusion.concat": [(lambda: ConcatFusion(16), [MAP, MAP], [])],
    "fusion.cross_attention": [
        (lambda: CrossAttention(16, heads=4), [SEQUENCE, (2, 5, 16)], []),
        (lambda: CrossAttention(16, heads=4, key_bias=False), [SEQUENCE, (2, 5, 16)], [SEEN]),
    ],
    "fusion.cross_mamba": [
        (lambda: CrossMambaBlock(16), [MAP, MAP], []),
        (lambda: CrossMambaFusion(16), [MAP, MAP], []),
        (lambda: CrossMambaBlock(16, route_set="axial"), [VOLUME, VOLUME], []),
        (lambda: CrossMambaFusion(16, route_set="triplane3"), [VOLUME, VOLUME], []),
    ],
    "fusion.cross_view": [(lambda: CrossViewFusion(16), [MAP, MAP], [])],
    "fusion.dssf": [
        (lambda: DSSF(16), [MAP, MAP], []),
        (lambda: DSSF(16, ir_to_rgb=False), [MAP, MAP], []),
        (lambda: DSSFChain(16, depth=3, d_state=4), [MAP, MAP], []),
    ],
    "fusion.dual_level": [
        (lambda: SlicePlace(16), [(2, 5)], []),
        (lambda: SliceAttention(16), [(2, 5, 16), (2, 5)], [SEEN]),
        (lambda: AttentionPooling(16), [(2, 5, 16)], [SEEN]),
        (lambda: MeanPooling(), [(2, 5, 16)], [SEEN]),
        (lambda: GatedCrossModal(16), [(2, 16), (2, 5, 16), (2, 16), (2, 3, 16)], [SEEN, torch.ones(2, 2) > 0]),
    ],
    "fusion.fusion_mamba_block": [
        (lambda: FusionMambaBlock(16, depth=2), [MAP, MAP], []),
        (lambda: FusionMambaBlock(16, depth=0), [MAP, MAP], []),
        (lambda: FusionMambaBlock(16, depth=2, swap=False, rgb_to_ir=False), [MAP, MAP], []),
        (lambda: FusionMambaBlock(16, depth=0, swap=False), [MAP, MAP], []),
    ],
    "fusion.local_global": [(lambda: LocalGlobalGate(16), [MAP, MAP], [])],
    "fusion.pixel": [],  # rules on pixels, nothing to learn
    "fusion.source_details": [
        (lambda: GatedBlock(16, dilation=2), [IMAGE], []),
        (lambda: GatedBlock(16, dilation=2, num_dims=3), [CUBOID], []),
        (lambda: SourceDetails(context=16, width=8, dilations=(1, 2), levels=2), [PIXELS, PIXELS, WIDE], []),
        (
            lambda: SourceDetails(context=16, width=8, dilations=(1, 2), levels=2, num_dims=3, edges=True),
            [VOXELS, VOXELS, DEEP],
            [],
        ),
    ],
    "fusion.sscs": [(lambda: SSCS(16), [MAP, MAP], [])],
}
NUM_MODULES = 44
CASES = [(name, index) for name, cases in MEMBERS.items() for index in range(len(cases))]


def build(name: str, index: int) -> tuple[nn.Module, list[Tensor], list[Tensor]]:
    make, shapes, further = MEMBERS[name][index]
    torch.manual_seed(0)
    module = make()
    return module, [torch.randn(shape, requires_grad=True) for shape in shapes], further


def outputs(module: nn.Module, inputs: list[Tensor], further: list[Tensor]) -> tuple[Tensor, ...]:
    y = module(*inputs, *further)
    return y if isinstance(y, tuple) else (y,)


def listed(folder: str) -> set[str]:
    files = (Path(scanfuse.__file__).parent / folder).glob("*.py")
    return {f"{folder}.{file.stem}" for file in files if file.stem != "__init__"}


def test_every_file_of_the_folders_is_here() -> None:
    """A new file in layers/ or fusion/ brings an entry in MEMBERS."""
    assert listed("layers") | listed("fusion") == set(MEMBERS)


def test_every_public_module_is_here() -> None:
    found = {
        member
        for name in MEMBERS
        for member in vars(importlib.import_module(f"scanfuse.{name}")).values()
        if inspect.isclass(member) and issubclass(member, nn.Module) and member.__module__ == f"scanfuse.{name}"
    }
    assert len(found) == NUM_MODULES
    assert found == {type(build(name, index)[0]) for name, index in CASES}


@pytest.mark.parametrize(("name", "index"), CASES, ids=lambda value: str(value))
def test_every_parameter_and_every_input_gets_a_gradient(name: str, index: int) -> None:
    module, inputs, further = build(name, index)
    sum((y * torch.randn_like(y)).sum() for y in outputs(module, inputs, further)).backward()
    without = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
    without += [f"input {i}" for i, x in enumerate(inputs) if x.grad is None or not x.grad.abs().max() > 1e-9]
    assert without == []


@pytest.mark.parametrize(("name", "index"), CASES, ids=lambda value: str(value))
def test_saved_and_loaded_weights_give_the_same_bits(name: str, index: int, tmp_path: Path) -> None:
    module, inputs, further = build(name, index)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    other = MEMBERS[name][index][0]()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        before, after = (outputs(m.eval(), inputs, further) for m in (module, other))
    assert all(torch.equal(y, z) for y, z in zip(before, after, strict=True))
