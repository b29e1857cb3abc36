"""What ``view.py`` does: a page in the browser, or folders for other programs."""

from __future__ import annotations

import sys
import time
import webbrowser
from argparse import Namespace
from pathlib import Path

from tqdm import tqdm

from emlib.errors import UserError
from emlib.view.contents import Contents, open_contents
from emlib.view.state import MOST_LISTED

FORMATS = ("precomputed", "cave", "neuprint")
SKELETONS = Path("data") / "skeletons"


def view(args: Namespace) -> None:
    """Write what is asked for; where nothing is, serve a page until the user stops it.

    Raises
    ------
    UserError
        If there is no run, or the page cannot be served, or a folder cannot be written.
    """
    wanted = args.export and _format(args.export[0])
    page = not (args.export or args.skeletons)
    contents = open_contents(args.outdir, args.labels, args.voxel_size, MOST_LISTED if page else None)
    if page:
        show(contents, args)
        return
    written = []
    with tqdm(desc="export", unit="", leave=False, disable=args.quiet or not sys.stderr.isatty()) as bar:
        if wanted:
            written += _export(contents, wanted, Path(args.export[1]), args, bar.update)
        if args.skeletons:
            from emlib.view.export_tables import export_skeletons

            files = export_skeletons(contents, args.outdir / SKELETONS, bar.update)
            written.append(f"{args.outdir / SKELETONS}: {len(files)} skeletons")
    if not args.quiet:
        print(*(f"written: {one}" for one in written), sep="\n")


def _format(name: str) -> str:
    if name not in FORMATS:
        raise UserError(f"--export {name} is not known; write {', '.join(FORMATS)}, and the folder behind it")
    return name


def _export(contents: Contents, wanted: str, folder: Path, args: Namespace, tick) -> list[Path]:
    if wanted == "precomputed":
        from emlib.view.export_precomputed import export_precomputed

        return export_precomputed(contents, folder, f"emlib: {args.outdir}", args.url, tick)
    from emlib.view.export_tables import export_cave, export_neuprint

    return (export_cave if wanted == "cave" else export_neuprint)(contents, folder)


def show(contents: Contents, args: Namespace) -> None:
    """Serve a page until the user stops it."""
    from emlib.view.server import Page

    page = Page(contents, f"emlib: {args.outdir}", args.port, args.share)
    try:
        print(page.url, flush=True)
        if not args.quiet:
            _say(contents, args.share)
        if not args.no_browser:
            webbrowser.open(page.url)
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        if not args.quiet:
            print("closed")
    finally:
        page.close()


def _say(contents: Contents, share: bool) -> None:
    z, y, x = contents.neurites.shape
    shown, found = len(contents.synapses), contents.total
    synapses = f"{found} synapses" if shown == found else f"the best {shown} of {found} synapses"
    print(f"{', '.join(contents.images)}, neurites, {synapses}; {x} × {y} × {z} voxels")
    if contents.files.synthetic:
        print(contents.files.synthetic)
    if share:
        print("other machines can open this address: whoever has it sees the data")
    print("Ctrl-C ends it", flush=True)
