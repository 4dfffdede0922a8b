"""Any timm network as an encoder: the last of its feature maps."""

import difflib
from pathlib import Path

import timm
import torch
from jaxtyping import Float
from timm.layers import Format
from torch import Tensor, nn

from scanfuse.errors import UserError
from scanfuse.foreign import check_file

__all__ = ["TimmEncoder"]


class TimmEncoder(nn.Module):
    """x (b, c, h, w) -> the deepest map (b, dim, h', w') of a timm network, with random weights until `load`.

    Only the parts up to that map are built, so nothing goes untrained.

    Args:
        name: of a timm model that can give feature maps, such as "convnext_tiny" or "resnet18".
        channels: of the input. For another number than 3 timm repeats the published weights of the first layer over
            the channels and scales them, or sums them for one.

    Raises:
        UserError: timm has no such model; in the forward, pictures of a size that the network cannot take.

    Example:
        >>> TimmEncoder("resnet18")(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 512, 2, 3])
    """

    def __init__(self, name: str, *, channels: int = 3) -> None:
        super().__init__()
        self.name, self.channels = name, channels
        architecture = name.partition(".")[0]
        if not timm.is_model(architecture):
            near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
            raise UserError(f"timm has no model {name!r}{'; similar: ' + ', '.join(near) if near else ''}.")
        self.network = self._create(pretrained=False)
        self.dim: int = self.network.feature_info.channels()[-1]  # type: ignore[union-attr,operator]
        self.is_channels_last = getattr(self.network, "output_fmt", None) == Format.NHWC

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c h2 w2"]:
        try:
            features: Tensor = self.network(x)[-1]
        except (RuntimeError, AssertionError) as error:
            # Networks say it in many ways: maps that do not fit each other, an assertion of the size.
            if isinstance(error, torch.OutOfMemoryError) or "match" not in str(error):
                raise
            height, width = x.shape[2:]
            raise UserError(
                f"{self.name} cannot take pictures of {height} x {width} pixels: give --size 224, or another "
                "multiple of 32."
            ) from error
        return features.permute(0, 3, 1, 2) if self.is_channels_last else features

    def load(self, file: str | Path | None = None) -> None:
        """Takes timm's published weights: from `file`, or downloaded by timm if None.

        Raises:
            UserError: there are no such weights, or they do not fit.
        """
        if file is not None:
            check_file(file, "file of weights")
        try:
            # timm fills the truncated network leniently; the whole one is strict, so that nothing stays random.
            self._create(pretrained=True, file=file, features_only=False)
            filled = self._create(pretrained=True, file=file)
        except Exception as error:  # timm lets through whatever its hub client, unpickler or checks raise
            reason = " ".join(str(error).split())[:160]
            origin = file if file is not None else f"the published weights of {self.name}"
            raise UserError(f"timm cannot load {origin}: {reason}") from error
        self.network.load_state_dict(filled.state_dict(), strict=True)

    def _create(self, *, pretrained: bool, file: str | Path | None = None, features_only: bool = True) -> nn.Module:
        overlay = None if file is None else {"file": str(file)}
        last_map = {"features_only": True, "out_indices": (-1,)} if features_only else {}
        network: nn.Module = timm.create_model(
            self.name, pretrained=pretrained, pretrained_cfg_overlay=overlay, in_chans=self.channels, **last_map
        )
        return network
