"""Sections of a larval fly's ventral nerve cord with masks of three organelles, split as MExConn splits them."""

from emlib.runs.catalogue.dataset import DataSet, Piece, table_of_checksums

COMMIT = "7c952a5bce47b9c4204b886cdcd70e71e0d3dcfb"  # every file has been the same since this first commit

# SHA-256 of the files
CHECKSUMS = """
test/membranes/00.png 060b7b35e076880d7641f76a0ad2f43500038b753ce190cbbbf50bf762cc0ad6
test/membranes/03.png 069acb0ea203f1c160f44ed33a8a8cf3479e8d72e94a7d158fcc5aecb6e2dc1e
test/membranes/08.png 2adde9228e11d2e714361e3d7da38fe2144d936ae3203ae6e89560c4de281718
test/mitochondria/00.png cafce4f6e790c6e73f8cfcec4de5c6a9f2751a3b096362aaca2bf7ce83767c9f
test/mitochondria/03.png 3fef33c8321f8365b19cb27475c2c304bc92b841ddf8ba22ff0c009f117d429e
test/mitochondria/08.png 595aabbecdd6d2d6aa8a03f14f84dcf7c88db12fd324676d6c18ac93a5eb2429
test/raw/00.png 17a5d312c418352231daea23ab6542a610990ec25afee98cba692c2d0e8fd247
test/raw/03.png ad27b40f1df0b6125e52e7560aa5aaf72563b0dd1c4b4cd5d68c0d96e788121b
test/raw/08.png cff95c398e13beed856f59a13d3495c3cefa561f1680fb58e64093c3a347af9a
test/synapses/00.png 1ebd2f44506408e49d84f6dae1e7983f9397eb4d2b8b7012f58e90f0b01f3870
test/synapses/03.png 0bd430c6403fe8dcc62e86c50ee12c7f5057b30c9e39af6ffaff2f7ff6d334d4
test/synapses/08.png f21799ed6d901766fd10a1214c4d9b0abbeeeea186a60da47632e0233eca4f9e
train/membranes/01.png eb4f8bade6c49f506520d14f645e81339663580b9bba50c3707373dd52ab2e5a
train/membranes/04.png ccd41dc47347781a77dd2bcdcf880408c510941a810080999ca472f0fbd4f350
train/membranes/05.png c23066d26c414ab20726ca8abc2736f106fb1605897a5fd38f7ba4a0ad8fe52f
train/membranes/06.png 7b8ac986d908f2c7f83470d54a64b8ab8d0707075632bdd8db56133761efb58b
train/membranes/09.png ef984dd1413812e3fe7ba50d5520461d523d6db7f684439c9e7af5f737810f29
train/membranes/10.png d3051fb3f7d743cb363f971495dfabd6ab93692e66c5e0677d6045d4e9467437
train/membranes/11.png 6ee457421ee736f450aee6454243587262bb8db72d5ea9349c8d73f2c1069f68
train/membranes/12.png 6289142fc54688183d2049328bd52734fd02750f84e5555b291f37ab998b5a42
train/membranes/13.png 459057c54de2aafa09722db1a484ea863213aaaee93801f2e3a03716f0b8f551
train/membranes/14.png 77fc57389b944946b3b5db7d839594661b6b3dd3eb6623da131cd3733b78ea5e
train/membranes/15.png cf41ee1262e79a3d75785df70a3f497059f372f4439e0691758a5415e4217a25
train/membranes/17.png 0ef426e1349e58eb7dd354efe2446a0a8d5557b88619f8a400da636c2adce6d8
train/membranes/18.png 1b9dde5e6005678730b32c7638a9a4cfa67d8ef5fb257d6f4e602eac2cc3cb4b
train/membranes/19.png 738b329a4b69736d69b993c64393a682af18b5205af9a27b08644f3d0a9ffa2d
train/mitochondria/01.png 453d5facbc2a528e1ac29a10fe8a319f6c2204e63459af8491f6fcec4ece83bf
train/mitochondria/04.png ee1c941f2ed8d0dfa27a4aab9033896ed8ec6f37f0a6d106488678b43f50223e
train/mitochondria/05.png 044bbcaec781b82a3183d22097bcbb485017efcc1721d1a234b62a7891ece6a7
train/mitochondria/06.png f30d9ad571105d41b11306ac6f476f48ae2cec83c0f9de39f68e41b847234e02
train/mitochondria/09.png e906d3c649b215303f2bcf1bba4a9b30673cfc7e385dbb66a269be031b213c9f
train/mitochondria/10.png 69a80b3990bb7bb080cd7faaf28d62fff0c17e5dcf5aed0f556414039d91e7c7
train/mitochondria/11.png d8df6a8010f721b703d680d3a0a7fc8d1824533d114e3e972b3b4d20cd4221e3
train/mitochondria/12.png 80aae1fe44555008b9e9599bfdb966154a846595fae255ae9846cdf694148769
train/mitochondria/13.png 3989e1499179279b895ba15f5185e032206f210dbbd6d666f46e90157da12561
train/mitochondria/14.png 11ceb4d23df12436ebcf7d0fb73856ef07cfc83fd38f9c190fa207864139da58
train/mitochondria/15.png 4e0ee4aa25ea84926a36d366cc380ee297ed3908a20ab0a17f1a091e8df8035d
train/mitochondria/17.png 65b467b1ff5d02cdf64662866a82f74ebdd806846ba480b6466a2ce83fab37d6
train/mitochondria/18.png 18702352f71b7c9e5bd01ea97e5bb2110ad73b2e20f65a69f16681e91192d5aa
train/mitochondria/19.png be4f1e9bc9516c5af0b54c486f2183d02b1fab3094de4cbd8037f593db8397f8
train/raw/01.png 0131403d887821c43dc364c5cb7ca6ef869b628b4d9c075d3e994a62adf3aaca
train/raw/04.png 1d80da4429bed9609041313cfc7b53bff3524bcd3f827eb27061fa56da6ee427
train/raw/05.png 28e425039e8a96a190a7996dfcd6c7d048b718820bfd458a57802e33fbb93a29
train/raw/06.png 0571045ef4f6c781f19037e6acd182d5b277acb0975f626baf57251184587e92
train/raw/09.png ddf3333bad7efb062367a5959372f434145c8e5eac689368494d508815d8616d
train/raw/10.png 18401b2e2336187f67d2397d5f29712ba03e4e59bca7aa2603eb5d5d18cc5a0e
train/raw/11.png 741b325182d63b25bb48a6741aa6252621341929bce03f4c8e620d2a88ae4dfc
train/raw/12.png 2f27aec032a52387793de864ff7f86471f115e735503eab0a067e38fb6bd2815
train/raw/13.png eaa64bb53fdf82b4214f7adb42dcd44386a6b2becd0e70b37b1c0f1ed7c2e63e
train/raw/14.png 3b31ae1d14520301b43d3d263a5cfeb3fef478d5c5b49985d19d04db798192b1
train/raw/15.png 9382a0ed6e3dd505f3789aa7d92285e48322c4be5cc18219935e5b046302c982
train/raw/17.png 73d9a8414b071afe12232e33b0f4ba1a58e3ab5d72cfce4e99aa7946599a53fb
train/raw/18.png fecd8d687d34c120c480c678a6bf812c6300baf0805e175121e49403707ab2c1
train/raw/19.png ceaae477bec85dcd10b5042a6e2c1961e02445b527e57683b74da6e052074b71
train/synapses/01.png 97323d89efb1a4afbb3c0b8399d09e94e200146e6b8e5b98e98f3688dc8f61d7
train/synapses/04.png 69060b28c45caace68da97f926e6b296b1870ac34654a56cbce0fe6df8e79b5c
train/synapses/05.png f52a67a927b50a81decea5b4681c3f65da8b296222d44b3c14de27590bcd4578
train/synapses/06.png e3e83b78c3ba1c842ce696fc2deb6a8a6146d462909d0aeab8e295553f0dc88f
train/synapses/09.png 8bb34b9026b5b19f8ce571e87ff5d7d4584eb411ffb4c27b077b90c69fecb5fe
train/synapses/10.png bca938eea7fcde03818f80d316880eaff94fd7e9865e422052b94c19b30b680d
train/synapses/11.png 4f794abe3008768869a37dc6f4d2ca82156eee9e46357dc05050d495cc26abbc
train/synapses/12.png e489ef0f27c884019f8be895cd21a3b53b335694076e5f48e0d9ef0edb6944ff
train/synapses/13.png 1a6fa5abff9c8b86f930abefc6b7bc605b4a04371054ed03faceedcaa8fc5fb8
train/synapses/14.png b87b9c79c1ee9640eee685db4a9f4e089fbed25f22a855ab2866a9f34881a4db
train/synapses/15.png 6168e4abecf567f7805aeddcf93ac35709ca64e6eb7cb644f9b797e60d00aa2b
train/synapses/17.png 54a205c403c57c87b67915ccbe2e7245ed646d75d90ba6c0cf31b10401ed0c15
train/synapses/18.png 096a7fcd9bbd9a8b1c2b787debacfcdf32644a7ad910563e4a30644bee89c504
train/synapses/19.png 2aff025e66ba03494c86587ec8cae09b5124f65154c1ffc1730473fa1cdbdc1c
val/membranes/02.png 6fbea9171ee296739fba7a0222b2bdd43376fa72a46bf73bebfde27e71e3d3ca
val/membranes/07.png a4766f956fe54b37d4795fd727ea2bdc26dcf22c065849d1bd2d5a48431ca68e
val/membranes/16.png 8dad1cf00813e99774181292424a46659a84e9122ea0825eef41bcc363849cef
val/mitochondria/02.png 4dabef6af84e9844f67f7f0bbbe9f35825dcefc553bfeb429c7c9dd423f27a11
val/mitochondria/07.png 9a5a5d3c5a9a6d1aff4552c4e176dbaa5ed823844dab4343d7d6858a7fb74ee0
val/mitochondria/16.png 21349b845c4773064103741ccd5befdab7f4a62ee6e3a9102d84e1aa304cddd0
val/raw/02.png f2114445a72912665bd39d4c0b3231b762a910b31ac3072e2f3394040e461f33
val/raw/07.png 3637b0faba557d9fe80c7f94da4a572667a9f23636bd26a01cbebe76d7c53743
val/raw/16.png 7564c1d46d411c5152ebb778f2883372220fef8e2e8a092a059531e40e11edab
val/synapses/02.png 28625cdab2de114dda231bdb9c438e5e73ec80872236fe260868af9dccb212a5
val/synapses/07.png a0c0079f27672f1b4a66d7c433792846e0761b9b7a113b85c7a5f248d2d38409
val/synapses/16.png 799412b5cfe284f2254f9c4c134be800b568e82a102d028940b3cc37acaacda1
"""

DROSOPHILA_VNC = DataSet(
    name="drosophila-vnc",
    what="ssTEM, third-instar larval ventral nerve cord of Drosophila: 20 consecutive sections of 1024 × 1024, named "
    "by section; masks of membranes, mitochondria and synapses",
    source="https://github.com/abrarrahmanabir/MExConn, folder data/drosophila-vnc; labels of "
    "https://github.com/unidesigner/groundtruth-drosophila-vnc",
    licence="CC BY-NC-SA 3.0",
    citation="Gerhard S, Funke J, Martel J, Cardona A, Fetter R (2013). Segmented anisotropic ssTEM dataset of neural "
    "tissue. figshare, doi:10.6084/m9.figshare.856713",
    voxel_size_nm=(50, 4.6, 4.6),
    splits="train 14, val 3, test 3 (sections 00, 03, 08), as MExConn splits them",
    mib=16.8,
    pieces=tuple(Piece(path, sha256, (1024, 1024)) for path, sha256 in table_of_checksums(CHECKSUMS).items()),
    bases=(
        f"https://raw.githubusercontent.com/abrarrahmanabir/MExConn/{COMMIT}/data/drosophila-vnc/",
        f"https://github.com/abrarrahmanabir/MExConn/raw/{COMMIT}/data/drosophila-vnc/",
        f"https://cdn.jsdelivr.net/gh/abrarrahmanabir/MExConn@{COMMIT}/data/drosophila-vnc/",
    ),
    note="Some masks of mitochondria and synapses are anti-aliased; threshold them at half range. Sections are 45 to "
    "50 nm thick.",
)
