"""Train a model of one organelle, the baseline for the multi-expert model: `train.py` with a single expert.

python single_org_train.py --data_root data --domain drosophila-vnc --organelle mitochondria \
--out_path ./models/drosophila-vnc/model_mito.pth
"""

import sys

from emlib.learn.training.flags import add_training
from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__, conflict_handler="resolve")
    cli.add_run(parser)
    add_training(parser, one_organelle=True)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.learn.training.command import train_from_flags  # heavy: after parsing

    return train_from_flags(args)


if __name__ == "__main__":
    sys.exit(cli.run(main, outdir="--out_path", smaller="use a smaller --batch_size, --patch_size or --memory_gb"))
