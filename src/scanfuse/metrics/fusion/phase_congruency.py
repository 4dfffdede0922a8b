"""Phase congruency: how far the Fourier components of a picture agree in phase, place by place."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex128, Float64
from scipy import fft

__all__ = ["phase_congruency"]

_SCALES, _ORIENTATIONS = 4, 4
_WAVE = 6.0  # pixels: wavelength of the finest filter; it doubles from scale to scale
_BANDWIDTH = 0.55
_SPREAD = math.pi / _ORIENTATIONS / 1.2  # radians: standard deviation of the angular Gaussian
_CUTOFF, _SHARPNESS = 0.45, 15  # of the low pass that keeps the corners of the spectrum out
_NOISE_DEVIATIONS = 2.0
_NOISE_SCALE = 1.7  # the estimate of the noise holds for another measure; the authors divide it by this
_TINY = float(np.finfo(np.float64).eps)


class _Bank(NamedTuple):
    """Log-Gabor filters of one size.

    Attributes:
        filters: (orientations, scales, h, w), transfer functions with frequency 0 in the corner.
        noise: (orientations,), expected energy of noise whose median squared response to the finest filter is 1.
    """

    filters: Float64[np.ndarray, "o s h w"]
    noise: Float64[np.ndarray, " o"]


def phase_congruency(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """PC = sum_o max(0, E_o - T_o) / sum_o sum_s A_os, 0 to 1; a picture of one grey level has none.

    A_os is the amplitude of the response to the log-Gabor filter of scale s and orientation o, E_o the sum over
    scales of A_os (cos d - |sin d|) with d the phase's distance from the mean phase, T_o the energy that noise would
    have: its mean and two standard deviations, by the median response to the finest filter.

    Source: Kovesi 1999, equation 15, with the filters of Zhang, Zhang, Mou, Zhang 2011.
    """
    bank = _bank(*image.shape)
    spectrum = fft.fft2(image)
    energy, amplitude = np.zeros_like(image), np.zeros_like(image)
    for filters, noise in zip(bank.filters, bank.noise, strict=True):
        response: Complex128[np.ndarray, "s h w"] = fft.ifft2(spectrum * filters, axes=(-2, -1), overwrite_x=True)
        strength = np.abs(response)
        total = response.sum(axis=0)
        direction = total.conj() / (np.abs(total) + _TINY)
        turned = response * direction
        found = turned.real.sum(axis=0) - np.abs(turned.imag).sum(axis=0)
        threshold = noise * math.sqrt(float(np.median(strength[0] ** 2)))
        energy += np.maximum(found - threshold, 0.0)
        amplitude += strength.sum(axis=0)
    return (energy + _TINY) / (amplitude + _TINY)


@lru_cache(maxsize=2)
def _bank(height: int, width: int) -> _Bank:
    rows, columns = np.meshgrid(_frequencies(height), _frequencies(width), indexing="ij")
    radius = np.hypot(rows, columns)
    angle = np.arctan2(-rows, columns)
    low_pass = 1 / (1 + (radius / _CUTOFF) ** (2 * _SHARPNESS))
    radius[0, 0] = 1.0  # any number: the filters are set to 0 there
    radial = np.stack(
        [
            low_pass * np.exp(-(np.log(radius * _WAVE * 2**scale) ** 2) / (2 * math.log(_BANDWIDTH) ** 2))
            for scale in range(_SCALES)
        ]
    )
    radial[:, 0, 0] = 0.0
    filters = np.empty((_ORIENTATIONS, *radial.shape))
    noise = np.empty(_ORIENTATIONS)
    for orientation in range(_ORIENTATIONS):
        distance = angle - orientation * math.pi / _ORIENTATIONS
        distance = np.abs(np.arctan2(np.sin(distance), np.cos(distance)))
        filters[orientation] = radial * np.exp(-(distance**2) / (2 * _SPREAD**2))
        noise[orientation] = _noise(filters[orientation])
    return _Bank(filters, noise)


def _noise(filters: Float64[np.ndarray, "s h w"]) -> float:
    """The threshold for noise whose median squared response to the finest filter is 1.

    The squared response to Gaussian noise is exponentially distributed, so its mean is the median over log 2. The
    energy, a sum over scales, is Rayleigh distributed with the parameter tau.
    """
    power = 1 / math.log(2) / (filters[0] ** 2).sum()
    kernels = fft.ifft2(filters, axes=(-2, -1)).real * math.sqrt(filters[0].size)
    # sum_s k_s^2 + 2 sum_{s < t} k_s k_t, twice, and half of it: the square of the sum.
    tau = math.sqrt(power * float((kernels.sum(axis=0) ** 2).sum()))
    deviation = math.sqrt(2 - math.pi / 2)
    return tau * (math.sqrt(math.pi / 2) + _NOISE_DEVIATIONS * deviation) / _NOISE_SCALE


def _frequencies(side: int) -> Float64[np.ndarray, " n"]:
    """Cycles per pixel, 0 first; where the side is odd, the largest is one half, as in the authors' program."""
    if side % 2:
        return fft.ifftshift(np.arange(-(side - 1) / 2, (side - 1) / 2 + 1) / (side - 1))
    return fft.ifftshift(np.arange(-side / 2, side / 2) / side)
