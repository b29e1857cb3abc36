"""What ``predict.py`` does once its flags are parsed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from tqdm import tqdm

from emlib import __version__
from emlib.errors import UserError, nearest
from emlib.learn.prediction.blocks import BlockSettings
from emlib.learn.prediction.images import predict_image
from emlib.learn.prediction.inputs import NUMBERS, ImageInput, Input, VolumeInput, find_inputs
from emlib.learn.prediction.memory import MemoryPlan, measure_bytes_per_pixel, plan_memory
from emlib.learn.prediction.pictures import write_png
from emlib.learn.prediction.predictor import Predictor, load_predictor
from emlib.learn.prediction.record import PARTIAL, open_journal
from emlib.learn.prediction.run import Run, check_planes, compare_sizes, result_folders
from emlib.learn.prediction.settings import PredictSettings
from emlib.learn.prediction.volumes import OneByOne, as_tiff
from emlib.learn.tiles import TileSettings
from emlib.learn.training.device import resolve_device, resolve_precision
from emlib.publish.figure_overlay import draw_legend
from emlib.runs.lock import run_lock
from emlib.threads import get_threads

EXPORTS = ("onnx", "torchscript")
LEAST = 16  # pixels on a side of an image


class Way(Protocol):
    """How volumes are predicted."""

    def count(self, run: Run, one: VolumeInput) -> int:
        """Return how many blocks a volume has."""

    def opened(
        self, run: Run, inputs: Sequence[Input]
    ) -> AbstractContextManager[Callable[[VolumeInput, Callable[[], Any]], dict]]:
        """Yield a function that predicts a volume, and calls another one after each block."""


def predict_from_flags(args: argparse.Namespace, way: Way | None = None) -> list[str]:
    """Predict, or export, as the flags of `emlib.learn.prediction.flags.add_prediction` say.

    Parameters
    ----------
    args : Namespace
    way : Way, optional
        How volumes are predicted; default: block by block in this process.

    Returns
    -------
    list of str
        A summary and the paths written. Notes go to stderr as they come up.

    Raises
    ------
    UserError
        If the model, an input or an organelle does not exist, files are damaged, options do not go together, the
        output folder holds other results, memory runs out, or a file cannot be written.
    """
    import torch

    torch.set_num_threads(get_threads())
    note = _quiet_once(args.quiet)
    if args.export:
        return _export(args, note)
    if way is None and (left := [name for name in ("workers", "scheduler") if getattr(args, name, None)]):
        raise UserError(f"--{left[0]} goes with --blocks X Y Z, which says in which blocks a volume is predicted")
    if not args.input:
        raise UserError("name what to predict with --input: images, a folder, a stack")
    device = resolve_device(args.device, note)
    predictor = load_predictor(args.model_path, device, args.organelles, note)
    settings = make_settings(args, predictor)
    inputs = find_inputs(args.input, dataset=args.dataset, stack=args.stack)
    check_places(args.output, args.input, args.into_input)
    channels, predictor = predictor.choose(settings.organelles)
    plan, blocks = _plan(args, predictor, settings, device, note)
    _check_inputs(inputs, settings, predictor, note)
    folders = result_folders([predictor.classes[k] for k in channels], predictor.activation == "softmax", settings)
    with run_lock(args.output):
        record = make_record(predictor, settings, blocks, plan, inputs)
        journal = open_journal(args.output, record, folders=folders, resume=args.resume, overwrite=args.overwrite)
        run = Run(predictor, channels, settings, blocks, plan.room, args.memory_gb, args.output, journal, note)
        return _predict_all(run, inputs, folders, way or OneByOne(), progress=not args.quiet)


def make_settings(args: argparse.Namespace, predictor: Predictor) -> PredictSettings:
    """Return the settings that the flags ask for.

    Raises
    ------
    UserError
        If ``--resample`` is given and the model does not know the size of its pixels, or a range is empty.
    """
    pixel = args.resample_nm
    if args.resample:
        if predictor.voxel_size_nm is None:
            raise UserError(
                f"--resample: {predictor.path} does not say what pixels it learnt on; give --resample_nm NM"
            )
        pixel = float((predictor.voxel_size_nm[1] * predictor.voxel_size_nm[2]) ** 0.5)
    if args.grey_range and not args.grey_range[0] < args.grey_range[1]:
        raise UserError(f"--grey_range {args.grey_range[0]:g} {args.grey_range[1]:g}: LOW must be below HIGH")
    return PredictSettings(
        organelles=tuple(args.organelles) if args.organelles else None,
        threshold=args.threshold,
        grey_range=tuple(args.grey_range) if args.grey_range else None,
        voxel_size_nm=tuple(args.voxel_size) if args.voxel_size else None,
        pixel_nm=pixel,
        orthogonal=args.orthogonal,
        stack=args.stack,
        form=args.format,
        probabilities=args.probabilities,
        overlay=args.overlay,
        colour_masks=args.colour_masks,
        measure=args.measure,
        instances=args.instances,
    )


def make_record(
    predictor: Predictor, settings: PredictSettings, blocks: BlockSettings, plan: MemoryPlan, inputs: Sequence[Input]
) -> dict[str, Any]:
    """Return all that the results depend on, for ``predict.json``."""
    classes = [{"id": one.id, "name": one.name, "colour": one.colour} for one in predictor.classes]
    how = {**vars(settings), **vars(blocks.tiles), "device": blocks.device, "block_bytes": plan.room}
    about = {"emlib": __version__, "model": {"sha256": predictor.sha256, "activation": predictor.activation}}
    return {**about, "classes": classes, "settings": how, "inputs": [one.identity for one in inputs]}


def check_places(output: Path, specs: Sequence[str], allowed: bool) -> None:
    """Refuse an output folder that is, or lies in, a folder of the input, where the next run would find its results.

    Raises
    ------
    UserError
        If so, and it is not ``allowed``.
    """
    place = output.resolve()
    for spec in map(str, specs):
        folder = Path(spec).expanduser()
        if "://" not in spec and folder.is_dir() and place.is_relative_to(folder.resolve()) and not allowed:
            raise UserError(f"--output {output} lies in the input {spec}; choose another, or give --into_input")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; name a folder")


def _plan(
    args: argparse.Namespace,
    predictor: Predictor,
    settings: PredictSettings,
    device: str,
    note: Callable[[str], None],
) -> tuple[MemoryPlan, BlockSettings]:
    """Tiles and blocks that stay below ``--memory_gb``."""
    cost = predictor.bytes_per_pixel or measure_bytes_per_pixel(predictor.network)
    batch = 1 if device == "cpu" else args.batch_size
    precision = resolve_precision(args.precision, device, note)
    chosen = {"batch": batch, "tile": args.tile, "overlap": args.overlap, "tta": args.tta}
    plan = plan_memory(args.memory_gb, cost, len(predictor.classes), **chosen)
    try:
        tiles = TileSettings(plan.tile, plan.overlap, batch, args.tta, precision)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    return plan, BlockSettings(tiles, device, settings.orthogonal, grey_range=settings.grey_range)


def _check_inputs(
    inputs: Sequence[Input], settings: PredictSettings, predictor: Predictor, note: Callable[[str], None]
) -> None:
    """What can be told before anything is predicted."""
    for one in inputs:
        volume = isinstance(one, VolumeInput)
        size = settings.voxel_size_nm or (one.source.voxel_size_nm if volume else None)
        where = one.source.uri if volume else str(one.path)
        if volume and one.source.dtype.kind not in NUMBERS:
            raise UserError(f"{where} holds {one.source.dtype}; grey values are whole or decimal numbers")
        shape = None
        with suppress(UserError):  # of a damaged file, which is told when its turn comes: the others are predicted
            shape = None if volume else one.shape
        if shape and min(shape) < LEAST:
            raise UserError(f"{where} is {' × '.join(map(str, shape))} pixels; an image has at least {LEAST} a side")
        if settings.orthogonal and not volume:
            raise UserError(f"--orthogonal is for volumes, and {where} is one image; leave it out (or give --stack)")
        if settings.form != "auto" and not volume:
            raise UserError(f"--format is for volumes, and {where} is one image, whose mask is a PNG; leave it out")
        if settings.orthogonal and (warning := check_planes(one.source.shape, size, where)):
            note(warning)
        if told := compare_sizes(size, predictor.voxel_size_nm, settings.pixel_nm is not None):
            note(told)
        if settings.objects and size is None and predictor.voxel_size_nm is not None:
            nm = " × ".join(f"{value:g}" for value in predictor.voxel_size_nm)
            note(f"note: objects are measured with voxels of {nm} nm (z y x), the model's; --voxel_size gives others")
        if settings.objects and size is None and predictor.voxel_size_nm is None:
            raise UserError("objects are found and measured in nm; give --voxel_size Z Y X")
        if settings.pixel_nm is not None and size is None:
            raise UserError(f"--resample: the size of a pixel of {where} is unknown; give --voxel_size Z Y X in nm")


def _predict_all(run: Run, inputs: Sequence[Input], folders: Sequence[str], way: Way, *, progress: bool) -> list[str]:
    """Predict one input after the other."""
    volumes = [one for one in inputs if isinstance(one, VolumeInput)]
    blocks = 0
    for one in volumes:
        blocks += way.count(run, one)
        as_tiff(run.settings.form, one, run.memory_gb, one.source.uri)
        if run.settings.objects:
            from emlib.learn.prediction.objects import check_objects_fit

            check_objects_fit(one.source.shape, run.settings.method, run.memory_gb, one.source.uri)
    start, done, pixels, foreground = perf_counter(), 0, 0, dict.fromkeys((one.name for one in run.classes), 0)
    total = len(inputs) - len(volumes) + blocks
    shown = {"desc": "predict", "unit": "block" if volumes else "image", "disable": None if progress else True}
    with way.opened(run, inputs) as predict_volume, tqdm(total=total, **shown) as bar:
        for one in inputs:
            done += run.journal.get(one.name) is not None
            if isinstance(one, ImageInput):
                found = predict_image(run, one)
                bar.update()
            else:
                found = predict_volume(one, bar.update)
            pixels += found["pixels"]
            for name, count in found["foreground"].items():
                foreground[name] += count
    with suppress(OSError):  # it is empty now
        (run.root / PARTIAL).rmdir()
    written = [run.root / folder for folder in folders]
    if run.settings.measure:
        from emlib.learn.prediction.objects import join_measurements

        images = [one.name for one in inputs if isinstance(one, ImageInput)]
        written += [run.root / join_measurements(run.root, images)] if images else []
    if run.settings.overlay or run.settings.colour_masks:
        write_png(run.root / "legend.png", draw_legend({one.name: one.colour for one in run.classes}))
        written.append(run.root / "legend.png")
    earlier = f" ({done} of them by an earlier run)" if done else ""
    share = ", ".join(f"{name} {count / pixels:.1%}" for name, count in foreground.items())
    seconds = perf_counter() - start
    line = (
        f"predicted {_plural(len(inputs) - len(volumes), 'image')}{earlier}"
        if not volumes
        else (f"predicted {_plural(len(inputs), 'input')}{earlier}")
    )
    return [f"{line}, {pixels / 1e6:.3g} megapixels in {seconds:.1f} s: {share}", *(f"written: {w}" for w in written)]


def _export(args: argparse.Namespace, note: Callable[[str], None]) -> list[str]:
    from emlib.learn.prediction.export import export_network

    kind, path = args.export
    if kind not in EXPORTS:
        raise UserError(f"--export {kind}: {nearest(kind, EXPORTS)}")
    return export_network(load_predictor(args.model_path, "cpu", args.organelles, note), kind, path)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _quiet_once(quiet: bool) -> Callable[[str], None]:
    """Print notes to stderr, each kind of line once; a folder of colour images would say so a thousand times."""
    seen: set[str] = set()

    def note(line: str) -> None:
        kind = line.split(" is in colour")[-1] if " is in colour" in line else line
        if not quiet and kind not in seen:
            seen.add(kind)
            tqdm.write(line, file=sys.stderr)

    return note
