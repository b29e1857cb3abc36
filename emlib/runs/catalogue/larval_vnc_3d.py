"""A small stack of a larval fly's ventral nerve cord with all its neurites: the training volume of ISBI 2012."""

from emlib.runs.catalogue.dataset import DataSet, Piece, table_of_checksums

# SHA-256 of the decoded stacks
CHECKSUMS = """
em_u8_zyx.tif 1c5f44aca79e706665fb8fdc097e420c201f2dc2748a0e25dfe0a046f7b83d9d
mitochondria_u8_zyx.tif cece4fb44a548c312c14c1fe0cb810c3503901bd71aab9985d04795a2a8a99d1
neurites_u8_zyx.tif 66a04de8a64bee83bd0742c13908bb1702e7bcc6167c8e76587faa968aec3174
"""

LARVAL_VNC_3D = DataSet(
    name="larval-vnc-3d",
    what="ssTEM, first-instar larval ventral nerve cord of Drosophila: 15 sections of 512 × 512; neurites and glia, "
    "dense, 0 is membrane, and a mask of mitochondria",
    source="https://github.com/kumeS/rMiW, folders 02_TrakEM2_tifs: the ISBI 2012 training volume with its "
    "TrakEM2 labels",
    licence="free for non-commercial segmentation software, with citation",
    citation="Cardona A, Saalfeld S, Preibisch S, Schmid B, Cheng A, Pulokas J, Tomancak P, Hartenstein V (2010). An "
    "integrated micro- and macroarchitectural analysis of the Drosophila brain by computer-assisted serial section "
    "electron microscopy. PLoS Biology 8, e1000502",
    voxel_size_nm=(50, 4, 4),
    splits="none published; here z 0-6 is for choosing settings and z 7-14 for the final figure only",
    mib=3.6,
    pieces=tuple(
        Piece(path, sha256, (15, 512, 512), decoded=True) for path, sha256 in table_of_checksums(CHECKSUMS).items()
    ),
    no_address="https://github.com/kumeS/rMiW spreads the 30 sections over several folders, and which 15 of them these "
    "are, in which encoding of labels, is not documented",
    note="A few ids have many components, probably glia.",
)
