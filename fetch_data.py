"""Put data in place: public data sets, checked, and the synthetic phantom with full truth.

python fetch_data.py --list
python fetch_data.py drosophila-vnc
python fetch_data.py fib25-medulla --from ../shared/data --output data/fib25-medulla
python fetch_data.py phantom --shape 256 256 64 --voxel_size 10 10 10 --seed 3 --output data/phantom3
python fetch_data.py phantom --domain --output data/phantom-organelles
python fetch_data.py bossdb://collection/experiment/channel --zarr data/em.zarr
"""

import sys
from pathlib import Path

from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__, conflict_handler="resolve")
    parser.add_argument("name", nargs="?", metavar="NAME", help="what to put in place; --list shows the names")
    parser.add_argument("--list", action="store_true", help="names, sizes, licences and which copies are there")
    cli.add_run(parser)
    # after add_run, whose --outdir becomes another name of this one
    parser.add_argument(
        "--output",
        "--outdir",
        type=Path,
        metavar="DIR",
        help="folder (default: data/NAME; with --domain data/phantom-sections)",
    )
    public = parser.add_argument_group("public data sets")
    public.add_argument("--from", dest="local", type=Path, metavar="DIR", help="copy from here, do not download")
    public.add_argument("--mirror", metavar="URL", help="web folder with the files of NAME, tried first")
    timeout = {"type": cli.positive(float), "default": 30.0, "metavar": "S"}
    public.add_argument("--network_timeout", help="seconds per request (default: 30)", **timeout)
    volume = parser.add_argument_group(
        "a volume (bossdb://…, precomputed://…, or a file), copied into OME-Zarr by blocks"
    )
    volume.add_argument("--zarr", type=Path, metavar="OUT.zarr", help="where to; a copy that was cut short goes on")
    voxels = {"type": int, "nargs": 3, "metavar": ("X", "Y", "Z")}
    volume.add_argument("--cutout", help="size in voxels (default: all of it)", **voxels)
    volume.add_argument("--offset", help="first voxel (default: 0 0 0)", **voxels)
    level = {"type": cli.at_least_zero(int), "default": 0, "metavar": "N"}
    volume.add_argument("--resolution", help="of BossDB or precomputed: coarser levels (default: 0)", **level)
    volume.add_argument("--labels", action="store_true", help="it holds ids: coarse levels take the most frequent one")
    volume.add_argument("--fill_missing", action="store_true", help="take chunks that it lacks as empty")
    volume.add_argument("--zarr_version", choices=("0.5", "0.4"), default="0.5", help="of OME-Zarr (default: 0.5)")
    volume.add_argument("--boss_config", metavar="FILE", help="host and token, in the form of intern.cfg")
    phantom = parser.add_argument_group("phantom")
    phantom.add_argument("--domain", action="store_true", help="sections with organelle masks, split for training")
    shape = "voxels (default: 256 256 64; with --domain 384 384 20, where Z is the number of sections)"
    phantom.add_argument("--shape", type=int, nargs=3, metavar=("X", "Y", "Z"), help=shape)
    size = {"type": cli.positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
    phantom.add_argument("--voxel_size", help="nm (default: 40 8 8); of a volume: wins over the file's", **size)
    phantom.add_argument("--damaged_section", type=int, metavar="Z", help="damage this section")
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.runs.fetch_commands import (
        copy_volume,
        fetch_public,
        make_phantom_files,
        print_list,
    )  # heavy: after parsing

    if args.list:
        print_list()
    elif args.name == "phantom":
        make_phantom_files(args)
    elif args.name and ("://" in args.name or args.zarr):
        copy_volume(args)
    else:
        fetch_public(args)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, outdir="--output", smaller="ask for a smaller --shape, or close other programs"))
