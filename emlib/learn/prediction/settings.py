"""What a prediction is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from emlib.volumes.volume import ZYX


@dataclass(frozen=True)
class PredictSettings:
    """How to predict, and which files to write; every value can change a result.

    Attributes
    ----------
    organelles : tuple of str, optional
        Which channels of the model; default all but the background of a softmax model.
    threshold : float in (0, 1]
        A pixel is foreground from this probability on; a softmax model takes its most probable class instead.
    grey_range : (low, high), optional
        Grey values that become 0 and 1, clipped; default the range of the integer type.
    voxel_size_nm : (z, y, x) in nm, optional
        Of all inputs; wins over what their files say.
    pixel_nm : float, optional
        Resample sections to square pixels of this size first; the result lies on the grid of the input.
    orthogonal : bool
        Mean over the sections of all three directions.
    stack : bool
        The images of a folder are the sections of one volume.
    form : "auto", "tiff" or "zarr"
        Of the masks of a volume.
    probabilities, overlay, colour_masks, measure : bool
        Which files to write besides masks.
    instances : "watershed", "components" or None
        Number objects by this method; for ``measure`` alone they are components.
    """

    organelles: tuple[str, ...] | None = None
    threshold: float = 0.5
    grey_range: tuple[float, float] | None = None
    voxel_size_nm: ZYX | None = None
    pixel_nm: float | None = None
    orthogonal: bool = False
    stack: bool = False
    form: str = "auto"
    probabilities: bool = False
    overlay: bool = False
    colour_masks: bool = False
    measure: bool = False
    instances: str | None = None

    @property
    def objects(self) -> bool:
        """Whether objects are looked for."""
        return self.measure or self.instances is not None

    @property
    def method(self) -> str:
        """How objects are found."""
        return self.instances or "components"
