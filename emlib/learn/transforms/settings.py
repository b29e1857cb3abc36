"""What augmentation draws, how often and how strongly."""

from __future__ import annotations

from dataclasses import dataclass

from emlib.errors import UserError, nearest

CHANCES = "flip rotate scale elastic brightness contrast gamma noise blur missing_region missing_section".split()
CHANCES += ["erase", "crop"]
LIMITS = {  # of the two ends of a range
    **dict.fromkeys(("contrast_range", "gamma_range", "blur_range"), (1e-3, 1e3)),
    **dict.fromkeys(("noise_range", "region_range", "erase_range"), (0, 1)),
    "scale_range": (0.1, 10),  # a patch is cut from a source as many times larger as it is made smaller
    "crop_range": (0.1, 1),
}
PADS = ("mirror", "constant")
MOST_ELASTIC_PX = 256  # around a patch so much more is read


@dataclass(frozen=True)
class AugmentSettings:
    """Each change with the chance that a patch undergoes it, in [0, 1], and its range; the defaults change nothing.

    Grey is counted in units of the data's own range: 0 is its dark end, 1 its bright end (see
    `emlib.learn.transforms.grey_range`), so that settings mean the same for all data.

    Attributes
    ----------
    flip : float
        Chance of each of the two flips.
    quarter_turns : bool
        Turn by 0, 90, 180 or 270 degrees, equally often.
    rotate, rotate_degrees
        Free rotation, evenly within ± so many degrees.
    scale, scale_range
        Magnification of the content, evenly in the logarithm.
    elastic, elastic_px, elastic_spacing_px
        Smooth displacement, a cubic B-spline through control points so far apart; no pixel moves further than
        ``elastic_px`` along an axis.
    brightness, brightness_range
        Added to grey, evenly within ±.
    contrast, contrast_range
        Factor of the distance from grey 0.5, evenly in the logarithm.
    gamma, gamma_range
        Exponent of grey, evenly in the logarithm.
    noise, noise_range
        Standard deviation of Gaussian noise.
    blur, blur_range
        Standard deviation of a Gaussian filter, in pixels.
    missing_region, region_range
        A rectangle without tissue (black, white or the mean grey), with nothing on its masks: its sides as shares of
        the patch.
    missing_section : float
        Chance that this is the whole patch, as where a section was lost.
    erase, erase_range, erase_count
        Up to so many rectangles hidden behind one random grey or behind noise, with their masks kept, so that what is
        there must be told from around it (random erasing, Zhong et al. 2020); their sides as shares of the patch.
    crop, crop_range, pad
        A rectangle of the patch, its sides as shares of the patch, at another place, as where a patch reaches beyond
        its image; around it the tissue is mirrored (``mirror``, with its masks) or black with nothing on its masks
        (``constant``).

    Raises
    ------
    UserError
        If a chance lies outside of [0, 1], a range is upside down or impossible, or the displacement could fold.
    """

    flip: float = 0.0
    quarter_turns: bool = False
    rotate: float = 0.0
    rotate_degrees: float = 180.0
    scale: float = 0.0
    scale_range: tuple[float, float] = (0.8, 1.25)
    elastic: float = 0.0
    elastic_px: float = 8.0
    elastic_spacing_px: float = 48.0
    brightness: float = 0.0
    brightness_range: float = 0.1
    contrast: float = 0.0
    contrast_range: tuple[float, float] = (0.7, 1.4)
    gamma: float = 0.0
    gamma_range: tuple[float, float] = (0.7, 1.4)
    noise: float = 0.0
    noise_range: tuple[float, float] = (0.0, 0.05)
    blur: float = 0.0
    blur_range: tuple[float, float] = (0.3, 1.5)
    missing_region: float = 0.0
    region_range: tuple[float, float] = (0.1, 0.4)
    missing_section: float = 0.0
    erase: float = 0.0
    erase_range: tuple[float, float] = (0.05, 0.2)
    erase_count: int = 3
    crop: float = 0.0
    crop_range: tuple[float, float] = (0.6, 0.95)
    pad: str = "mirror"

    def __post_init__(self):
        for name in CHANCES:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augmentation: {name} is a chance from 0 to 1, got {getattr(self, name):g}")
        for name, (least, most) in LIMITS.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise UserError(f"augmentation: {name} rises and lies from {least:g} to {most:g}, got {low:g} {high:g}")
        if self.pad not in PADS:
            raise UserError(f"augmentation: pad is {' or '.join(PADS)}, not {self.pad!r}; {nearest(self.pad, PADS)}")
        if not 1 <= self.erase_count <= 100:
            raise UserError(f"augmentation: erase_count lies from 1 to 100, got {self.erase_count}")
        if not (0 <= self.rotate_degrees <= 180 and 0 <= self.brightness_range <= 1):
            raise UserError("augmentation: rotate_degrees lies from 0 to 180, brightness_range from 0 to 1")
        if not 0 <= self.elastic_px <= MOST_ELASTIC_PX:
            raise UserError(f"augmentation: elastic_px lies from 0 to {MOST_ELASTIC_PX}, got {self.elastic_px:g}")
        if not 4 * self.elastic_px < self.elastic_spacing_px:
            raise UserError(
                f"augmentation: elastic_px {self.elastic_px:g} is not below a quarter of elastic_spacing_px "
                f"{self.elastic_spacing_px:g}, so that tissue could fold; lower it"
            )


PRESETS = {
    "none": AugmentSettings(),
    "light": AugmentSettings(flip=0.5, quarter_turns=True, brightness=0.5, contrast=0.5, gamma=0.5),
    "strong": AugmentSettings(
        flip=0.5,
        quarter_turns=True,
        rotate=0.5,
        scale=0.5,
        elastic=0.5,
        brightness=0.5,
        contrast=0.5,
        gamma=0.5,
        noise=0.3,
        blur=0.2,
        missing_region=0.05,
        missing_section=0.01,
    ),
}
