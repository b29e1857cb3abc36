"""Train a multi-expert organelle model: one encoder, one decoder per organelle.

python train.py --data_root data --domain drosophila-vnc --out_path ./models/drosophila-vnc/model.pth --time_budget 7
python train.py --data_root data --domain drosophila-vnc --out_path ./models/drosophila-vnc/model.pth --patch_size 256 \
--stride 128 --batch_size 8 --epochs 20 --lr 1e-4 --device cuda
"""

import sys

from emlib.learn.training.flags import add_training
from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__, conflict_handler="resolve")
    cli.add_run(parser)
    add_training(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.learn.training.command import train_from_flags  # heavy: after parsing

    return train_from_flags(args)


if __name__ == "__main__":
    sys.exit(cli.run(main))
