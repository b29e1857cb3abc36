"""A cube of fly medulla with all its neurites."""

from emlib.runs.catalogue.conversion import grey_stack, neuroproof_labels
from emlib.runs.catalogue.dataset import DataSet, Piece

COMMIT = "e2b4945f57d9bc15a9b991d0ad4990f22a54e828"  # the one that added training_sample2

FIB25_MEDULLA = DataSet(
    name="fib25-medulla",
    what="FIB-SEM, optic medulla of Drosophila: 250 × 250 × 250 voxels of 10 nm; 525 neurites, dense, 0 is unlabelled",
    source="https://github.com/janelia-flyem/neuroproof_examples, folder training_sample2",
    licence="Creative Commons attribution, share-alike; the repository's own LICENSE.txt is HHMI's BSD licence",
    citation="FlyEM project, Janelia Research Campus, HHMI (2013): sample data of NeuroProof. Parag T, Chakraborty A, "
    "Plaza S, Scheffer L (2015). A context-aware delayed agglomeration framework for electron microscopy segmentation. "
    "PLoS ONE 10, e0125825",
    voxel_size_nm=(10, 10, 10),
    splits="none published; here z 0-119 is for choosing settings and z 130-249 for the final figure only",
    mib=11.4,
    pieces=(
        Piece(
            "em_u8_zyx.tif",
            "d07cdb0c258b1eb9c42cab357915ed44990e60a2e606fb77e6c9153cbcb328e0",
            (250, 250, 250),
            decoded=True,
            remote=tuple(f"grayscale_maps/iso.{z}.png" for z in range(2600, 2850)),
            convert=grey_stack,
        ),
        Piece(
            "neurites_u16_zyx.tif",
            "1bd5d42401c4dbc29240ebc98e307b6014c2d53ee042198b7a508970ee40d43d",
            (250, 250, 250),
            dtype="uint16",
            decoded=True,
            remote=("groundtruth.h5.gz",),
            convert=neuroproof_labels,
        ),
    ),
    bases=(
        f"https://raw.githubusercontent.com/janelia-flyem/neuroproof_examples/{COMMIT}/training_sample2/",
        f"https://github.com/janelia-flyem/neuroproof_examples/raw/{COMMIT}/training_sample2/",
    ),
)
