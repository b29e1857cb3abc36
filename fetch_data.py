"""Put data in place: the synthetic phantom, with full truth beside it.

python fetch_data.py phantom --output data/phantom
python fetch_data.py phantom --shape 256 256 64 --voxel_size 10 10 10 --seed 3 --output data/phantom3
"""

import sys
from pathlib import Path

from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    parser.add_argument("name", choices=("phantom",), help="what to put in place")
    parser.add_argument("--output", type=Path, help="folder (default: data/NAME)")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("X", "Y", "Z"), help="voxels (default: 256 256 64)")
    size = {"type": cli.positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
    parser.add_argument("--voxel_size", help="nm (default: 40 8 8)", **size)
    parser.add_argument("--damaged_section", type=int, metavar="Z", help="damage this section")
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.volumes.phantom_files import phantom_settings, write_phantom  # heavy: after parsing

    settings = phantom_settings(args.shape, args.voxel_size, args.seed, args.damaged_section)
    written = write_phantom(settings, args.output or Path("data") / args.name)
    if not args.quiet:
        print(*(f"written: {path}" for path in written), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
