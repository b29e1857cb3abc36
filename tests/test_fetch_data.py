"""Public data sets: fetched from the web or a folder, each file checked; every failure is one line."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import socket
import threading
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from emlib.errors import UserError
from emlib.runs.catalogue import DATASETS, find_dataset
from emlib.runs.catalogue.conversion import grey_stack, mask_image, neuroproof_labels
from emlib.runs.catalogue.dataset import DataSet, Piece, array_sha256
from emlib.runs.catalogue.layout import SOURCE_NOTE, check_layout, find_fault
from emlib.runs.downloading import SCRATCH
from emlib.runs.fetching import fetch
from emlib.volumes import phantom_files
from emlib.volumes.open import open_volume
from emlib.volumes.phantom_files import domain_settings, phantom_settings, split_sections, write_domain, write_phantom

RNG = np.random.default_rng(0)
IMAGES = {
    f"train/{what}/{z:02d}.png": RNG.integers(0, 256, (8, 9), np.uint8) for what in ("raw", "masks") for z in (0, 1)
}


def png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


FILES = {path: png(array) for path, array in IMAGES.items()}
PIECES = tuple(Piece(path, sha256(data), (8, 9)) for path, data in FILES.items())
TINY = DataSet("tiny", "four images", "nowhere", "CC0", "Nobody (2000)", (50, 4, 4), "train 2", 0.1, PIECES)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; ``server.trouble`` names what happens to a path, for so many requests."""

    def do_GET(self):
        path = self.path.lstrip("/")
        self.server.asked.append(path)
        kind, times = self.server.trouble.get(path, (None, 0))
        if times:
            self.server.trouble[path] = (kind, times - 1)
            if isinstance(kind, int):
                return self.send_error(kind)
        else:
            kind = None
        if path not in self.server.files:
            return self.send_error(404)
        data = self.server.files[path]
        if kind == "other":
            data = png(np.zeros((8, 9), np.uint8))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind in ("truncated", "stalls") else data)
        if kind == "stalls":
            self.wfile.flush()
            self.server.release.wait(5)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    """Return a function that serves files on loopback until the test ends."""
    servers = []

    def start(files=FILES, trouble=None):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.files, server.asked, server.release = dict(files), [], threading.Event()
        server.trouble = dict(trouble or {})
        server.base = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=functools.partial(server.serve_forever, 0.02), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.release.set()
        server.shutdown()
        server.server_close()


def dead_address():
    """An address on loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def one_line(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_download_writes_the_published_files_and_their_source(tmp_path, serve):
    server = serve()
    done = fetch(replace(TINY, bases=(server.base,)), tmp_path / "tiny")
    assert listing(tmp_path / "tiny") == sorted([*FILES, SOURCE_NOTE])
    assert all((tmp_path / "tiny" / path).read_bytes() == data for path, data in FILES.items())
    assert len(done.placed) == 4 and not done.kept and not done.replaced
    note = done.note.read_text(encoding="utf-8")
    assert "CC0" in note and "Nobody (2000)" in note and "nowhere" in note


def test_what_is_there_is_not_asked_for_again_and_wrong_content_is_replaced(tmp_path, serve):
    server = serve()
    dataset = replace(TINY, bases=(server.base,))
    fetch(dataset, tmp_path)
    server.asked.clear()
    assert len(fetch(dataset, tmp_path).kept) == 4 and server.asked == []
    (tmp_path / "train/raw/00.png").unlink()
    (tmp_path / "train/masks/01.png").write_bytes(FILES["train/masks/01.png"][:-20])
    done = fetch(dataset, tmp_path)
    assert sorted(server.asked) == ["train/masks/01.png", "train/raw/00.png"]
    assert done.placed == ["train/raw/00.png"] and done.replaced == ["train/masks/01.png"]
    check_layout(dataset, tmp_path)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ((404, 9), "answered HTTP 404 for /train/raw/01.png"),
        ((500, 9), "answered HTTP 500"),
        (("truncated", 9), "broke off /train/raw/01.png"),
        (("other", 9), "sent a file that is not the published file (its SHA-256 differs)"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_whole_files(tmp_path, serve, trouble, says):
    server = serve(trouble={"train/raw/01.png": trouble})
    text = one_line(fetch, replace(TINY, bases=(server.base,)), tmp_path)
    assert says in text and "tiny: train/raw/01.png" in text and "--from DIR" in text
    assert listing(tmp_path) == ["train/raw/00.png"]
    server.trouble.clear()
    server.asked.clear()
    assert fetch(replace(TINY, bases=(server.base,)), tmp_path).kept == ["train/raw/00.png"]
    assert "train/raw/00.png" not in server.asked


@pytest.mark.parametrize("kind", [500, "truncated", "other"])
def test_a_passing_fault_heals(tmp_path, serve, kind):
    server = serve(trouble={"train/raw/01.png": (kind, 1)})
    assert len(fetch(replace(TINY, bases=(server.base,)), tmp_path).placed) == 4
    assert server.asked.count("train/raw/01.png") == 2


def test_mirrors_are_tried_in_order_and_the_failed_ones_named_once(tmp_path, serve):
    gone, broken, good = dead_address(), serve({}), serve()
    said = []
    fetch(replace(TINY, bases=(gone, broken.base, good.base)), tmp_path, warn=said.append)
    host = {"gone": gone[7:-1], "broken": broken.base[7:-1], "good": good.base[7:-1]}
    assert len(said) == 2 and all(line.endswith(f"{host['good']} serves in its place") for line in said)
    assert any(line.startswith(f"{host['gone']} cannot be reached (connection refused)") for line in said)
    assert any(line.startswith(f"{host['broken']} answered HTTP 404") for line in said)
    assert len(broken.asked) == 4 and len(good.asked) == 4


def test_unreachable_names_every_address_and_the_way_out(tmp_path):
    first, second = dead_address(), dead_address()
    text = one_line(fetch, replace(TINY, bases=(first, second)), tmp_path / "tiny")
    assert first[7:-1] in text and second[7:-1] in text and "cannot be reached" in text and "--from DIR" in text
    assert not (tmp_path / "tiny" / "train" / "raw" / "00.png").exists()


def test_a_server_that_stalls_is_left_after_the_time_out(tmp_path, serve):
    server = serve(trouble={"train/raw/00.png": ("stalls", 9)})
    text = one_line(fetch, replace(TINY, bases=(server.base,)), tmp_path, timeout_s=0.2)
    assert "stopped sending /train/raw/00.png" in text and listing(tmp_path) == []
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, never answers
    base = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    with silent:
        text = one_line(fetch, replace(TINY, bases=(base,)), tmp_path, timeout_s=0.2)
    assert "did not answer within 0.2 s" in text


def test_a_mirror_laid_out_alike_comes_first_and_serves_what_has_no_address(tmp_path, serve):
    mirror = serve({f"copy/{path}": data for path, data in FILES.items()})
    fetch(replace(TINY, no_address="nobody knows"), tmp_path, mirrors=[f"{mirror.base}copy"])
    assert len(mirror.asked) == 4
    text = one_line(fetch, replace(TINY, no_address="nobody knows"), tmp_path / "two")
    assert text == "tiny cannot be downloaded: nobody knows; give a copy of it with --from DIR"
    assert "begins with http://" in one_line(fetch, TINY, tmp_path / "three", mirrors=["ftp://host/x"])


@pytest.fixture
def copy(tmp_path):
    """A good local copy of the tiny data set."""
    for path, data in FILES.items():
        target = tmp_path / "store" / "tiny" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return tmp_path / "store"


def test_what_a_killed_fetch_left_half_written_goes(tmp_path, serve, copy):
    folders = [tmp_path / "out" / inside for inside in ("", "train/raw", "train/masks")]
    left = [folder / ".00.tmp999999999-0123abcd.png" for folder in folders]
    running = folders[1] / f".01.tmp{os.getppid()}-0123abcd.png"
    for path in (*left, running):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    fetch(TINY, tmp_path / "out", local=copy)
    assert running.exists() and not any(path.exists() for path in left)


@pytest.mark.parametrize("more", [[], ["--domain"]])
def test_what_a_killed_phantom_left_half_written_goes(tmp_path, more, call_script):
    left = tmp_path / "out" / ".train.tmp999999999-0123abcd"
    (left / "raw").mkdir(parents=True)
    shape = ["--shape", "64", "64", "8"]
    done = call_script("fetch_data.py", "phantom", *shape, *more, "--output", tmp_path / "out")
    assert done.returncode == 0 and not left.exists(), done.stderr


@pytest.mark.parametrize("inner", ["", "tiny"])
def test_from_takes_the_folder_or_the_one_above(tmp_path, copy, inner):
    done = fetch(TINY, tmp_path / "out", local=copy / inner)
    assert len(done.placed) == 4 and listing(tmp_path / "out") == sorted([*FILES, SOURCE_NOTE])


def test_bad_from_is_one_line_and_copies_nothing_wrong(tmp_path, copy):
    out = tmp_path / "out"
    assert "is not a folder" in one_line(fetch, TINY, out, local=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "holds neither tiny/ nor its files" in one_line(fetch, TINY, out, local=tmp_path / "empty")
    bad = copy / "tiny" / "train" / "masks" / "00.png"
    bad.write_bytes(png(np.zeros((8, 9), np.uint8)))
    assert f"{bad} is not the published file" in one_line(fetch, TINY, out, local=copy)
    assert not (out / "train/masks/00.png").exists()
    bad.write_bytes(png(np.zeros((8, 10), np.uint8)))
    assert f"{bad} holds 8 × 10 uint8 in place of 8 × 9 uint8" in one_line(fetch, TINY, out, local=copy)
    bad.write_bytes(b"no image")
    assert f"{bad} is damaged" in one_line(fetch, TINY, out, local=copy)
    bad.unlink()
    assert f"{bad} is missing" in one_line(fetch, TINY, out, local=copy)


def test_the_layout_names_a_missing_and_a_foreign_file(tmp_path, copy):
    folder = copy / "tiny"
    check_layout(TINY, folder)
    (folder / ".hidden").touch()
    check_layout(TINY, folder)
    foreign = folder / "train" / "raw" / "02.png"
    foreign.write_bytes(FILES["train/raw/00.png"])
    assert one_line(check_layout, TINY, folder).startswith(f"{foreign} is no part of tiny; move it away")
    assert f"{foreign} is no part of tiny" in one_line(fetch, TINY, folder, local=copy)
    foreign.unlink()
    (folder / "train/masks/01.png").unlink()
    assert "masks/01.png is missing; run fetch_data.py tiny" in one_line(check_layout, TINY, folder)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, copy):
    (tmp_path / "file").touch()
    assert "is a file; name a folder" in one_line(fetch, TINY, tmp_path / "file", local=copy)
    assert "cannot write" in one_line(fetch, TINY, tmp_path / "file" / "below", local=copy)


@pytest.mark.parametrize("way", ["copy", "download"])
def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_file(tmp_path, copy, serve, way):
    """A limit on the size of files refuses writes in the middle, as a full disk does."""
    resource = pytest.importorskip("resource")
    where = {"local": copy} if way == "copy" else {"mirrors": [serve().base]}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        text = one_line(fetch, TINY, tmp_path / "out", **where)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in text and "train/raw/00.png" in text and "free space" in text
    assert listing(tmp_path / "out") == []


LABELS = RNG.integers(0, 5, (3, 8, 9)) * 1000
SECTIONS = RNG.integers(0, 256, (3, 8, 9), np.uint8)
MASK = np.where(SECTIONS[0] > 127, 255, 0).astype(np.uint8)


def neuroproof_file(stack, transforms=None):
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file["stack"] = stack
        if transforms is not None:
            file["transforms"] = transforms
    return gzip.compress(data.getvalue())


def converted():
    """A data set whose source has another encoding, and the source's files."""
    small = (LABELS // 1000).astype(np.uint16)
    numbered = np.unique(small, return_inverse=True)[1].reshape(small.shape).astype(np.uint16)
    names = tuple(f"in/{z}.png" for z in range(3))
    pieces = (
        Piece("em.tif", array_sha256(SECTIONS), (3, 8, 9), "uint8", True, names, grey_stack),
        Piece("labels.tif", array_sha256(numbered), (3, 8, 9), "uint16", True, ("gt.h5.gz",), neuroproof_labels),
        Piece("mask.png", array_sha256(MASK), (8, 9), "uint8", True, ("dark.png",), mask_image),
    )
    files = {f"in/{z}.png": png(section) for z, section in enumerate(SECTIONS)}
    files |= {"gt.h5.gz": neuroproof_file(LABELS), "dark.png": png(255 - MASK)}
    return replace(TINY, pieces=pieces), files


def test_other_encodings_are_converted_and_checked_as_arrays(tmp_path, serve):
    dataset, files = converted()
    fetch(replace(dataset, bases=(serve(files).base,)), tmp_path)
    assert listing(tmp_path) == [SOURCE_NOTE, "em.tif", "labels.tif", "mask.png"]
    assert (tifffile.imread(tmp_path / "em.tif") == SECTIONS).all()
    labels = tifffile.imread(tmp_path / "labels.tif")
    assert labels.dtype == np.uint16 and (labels == LABELS // 1000).all()
    assert (np.asarray(Image.open(tmp_path / "mask.png")) == MASK).all()
    assert open_volume(str(tmp_path / "em.tif")).voxel_size_nm == (50, 4, 4)


def test_an_interrupted_conversion_goes_on_and_wrong_sources_are_asked_for_again(tmp_path, serve):
    dataset, files = converted()
    server = serve(files, trouble={"in/2.png": (404, 1)})
    dataset = replace(dataset, bases=(server.base,))
    one_line(fetch, dataset, tmp_path)
    assert listing(tmp_path) == [f"{SCRATCH}/in/0.png", f"{SCRATCH}/in/1.png"]
    server.asked.clear()
    server.files["gt.h5.gz"] = neuroproof_file(LABELS + (SECTIONS > 200))
    assert "do not make the published labels.tif" in one_line(fetch, dataset, tmp_path)
    assert server.asked == ["in/2.png", "gt.h5.gz"] and listing(tmp_path) == ["em.tif"]
    server.files["gt.h5.gz"] = b"no gzip"
    assert "sent files that cannot be converted" in one_line(fetch, dataset, tmp_path)
    server.files["gt.h5.gz"] = files["gt.h5.gz"]
    assert fetch(dataset, tmp_path).kept == ["em.tif"]


def test_neuroproof_supervoxels_become_bodies(tmp_path):
    path = tmp_path / "gt.h5.gz"
    path.write_bytes(neuroproof_file(np.array([[[0, 7, 8, 9]]]), np.array([[7, 300], [8, 200], [9, 300]])))
    assert neuroproof_labels([path])[0].tolist() == [[[0, 2, 1, 2]]]
    path.write_bytes(neuroproof_file(np.array([[[7, 8, 9]]])))
    assert neuroproof_labels([path])[0].tolist() == [[[1, 2, 3]]]


def test_an_array_counts_however_it_is_stored(tmp_path):
    """Where the checksum is the array's, another compression is the same file; another type or value is not."""
    piece = Piece("em.tif", array_sha256(SECTIONS), (3, 8, 9), decoded=True)
    for compression in (None, "zlib"):
        tifffile.imwrite(tmp_path / "em.tif", SECTIONS, compression=compression, photometric="minisblack")
        assert find_fault(tmp_path / "em.tif", piece) is None
    tifffile.imwrite(tmp_path / "em.tif", SECTIONS.astype(np.uint16), photometric="minisblack")
    assert "uint16 in place of" in find_fault(tmp_path / "em.tif", piece)
    tifffile.imwrite(tmp_path / "em.tif", SECTIONS ^ 1, photometric="minisblack")
    assert "does not hold the published values" in find_fault(tmp_path / "em.tif", piece)


def test_unknown_names_get_the_nearest():
    assert "did you mean fib25-medulla?" in one_line(find_dataset, "fib25")
    assert "did you mean drosophila-vnc?" in one_line(find_dataset, "drosophila_vnc")
    assert "there are drosophila-vnc, epfl-multiclass" in one_line(find_dataset, "qqqqq")


def test_the_catalogue_is_complete():
    for name, dataset in DATASETS.items():
        assert dataset.name == name and dataset.licence and dataset.citation and dataset.source and dataset.splits
        assert bool(dataset.bases) != bool(dataset.no_address)
        assert all(base.startswith("https://") and base.endswith("/") for base in dataset.bases)
        assert all(len(piece.sha256) == 64 for piece in dataset.pieces)
        assert len({piece.path for piece in dataset.pieces}) == len(dataset.pieces)


def splits_of(name):
    counts = {}
    for piece in DATASETS[name].pieces:
        split, what = piece.path.split("/")[:2]
        counts.setdefault(what, {}).setdefault(split, 0)
        counts[what][split] += 1
    return counts


def test_splits_are_the_published_ones():
    vnc, epfl = splits_of("drosophila-vnc"), splits_of("epfl-multiclass")
    assert set(vnc) == {"raw", "membranes", "mitochondria", "synapses"}
    assert all(split == {"train": 14, "val": 3, "test": 3} for split in vnc.values())
    assert all(split == {"train": 23, "val": 4, "test": 5} for split in epfl.values())
    test = {p.path for p in DATASETS["drosophila-vnc"].pieces if p.path.startswith("test/raw")}
    assert test == {"test/raw/00.png", "test/raw/03.png", "test/raw/08.png"}
    remotes = {piece.remote[0] for piece in DATASETS["epfl-multiclass"].pieces}
    assert len(remotes) == 128 and "data/epfl_train/mitochondrion/training0061.png" in remotes


@pytest.mark.parametrize("name", DATASETS)
def test_real_data_are_taken_from_a_local_copy(real_data, tmp_path, name):
    dataset = DATASETS[name]
    if not (real_data / name).is_dir():
        pytest.skip(f"no {name} under {real_data}")
    done = fetch(dataset, tmp_path / name, local=real_data)
    assert len(done.placed) == len(dataset.pieces)
    size = sum((tmp_path / name / piece.path).stat().st_size for piece in dataset.pieces)
    assert size / 2**20 == pytest.approx(dataset.mib, abs=0.1)
    em = tmp_path / name / ("em_u8_zyx.tif" if name in ("fib25-medulla", "larval-vnc-3d") else "train/raw")
    assert open_volume(str(em)).dtype == np.uint8


def test_the_script_copies_prints_the_licence_and_lists(real_data, tmp_path, run_script):
    first = run_script("fetch_data.py", "larval-vnc-3d", "--from", real_data, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for line in ("licence: free for non-commercial", "cite: Cardona A", "3 files copied, 0 were there", "SOURCE.md"):
        assert line in first.stdout
    listed = run_script("fetch_data.py", "--list", cwd=tmp_path).stdout
    row = next(line for line in listed.splitlines() if line.startswith("larval-vnc-3d"))
    assert "data/larval-vnc-3d" in row.replace("\\", "/")
    assert "no" in next(line for line in listed.splitlines() if line.startswith("fib25-medulla")).split()
    assert listing(tmp_path / "data" / "larval-vnc-3d")[0] == SOURCE_NOTE


def test_the_script_downloads_from_a_mirror_and_goes_on_where_it_stopped(real_data, tmp_path, call_script, serve):
    folder = real_data / "larval-vnc-3d"
    server = serve({path.name: path.read_bytes() for path in folder.glob("*.tif")})
    neurites = server.files.pop("neurites_u8_zyx.tif")
    command = ["fetch_data.py", "larval-vnc-3d", "--mirror", server.base, "--output", tmp_path / "out"]
    stopped = call_script(*command, "--quiet")
    assert stopped.returncode == 2 and stopped.stderr.count("\n") == 1 and "answered HTTP 404" in stopped.stderr
    server.files["neurites_u8_zyx.tif"] = neurites
    server.asked.clear()
    done = call_script(*command)
    assert done.returncode == 0 and "1 files downloaded, 2 were there" in done.stdout, done.stderr
    assert server.asked == ["neurites_u8_zyx.tif"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "name what to put in place: drosophila-vnc, epfl-multiclass"),
        (["drosophila"], "did you mean drosophila-vnc?"),
        (["drosophila-vnc", "--from", "nowhere"], "--from nowhere is not a folder"),
        (["drosophila-vnc", "--domain"], "--domain goes with phantom, not with drosophila-vnc"),
        (["drosophila-vnc", "--from", ".", "--mirror", "http://x"], "give one of them"),
        (["phantom", "--from", "."], "--from goes with public data sets"),
        (["phantom", "--domain", "--shape", "64", "64", "2"], "gives 2 sections; --domain splits 3"),
        (["larval-vnc-3d"], "give a copy of it with --from DIR"),
    ],
)
def test_wrong_commands_are_one_line(tmp_path, call_script, flags, says):
    wrong = call_script("fetch_data.py", *flags, "--quiet", cwd=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and says in wrong.stderr, wrong.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [3, 4, 7, 12, 20, 33, 100])
def test_sections_are_split_without_overlap(count):
    splits = split_sections(count)
    assert sorted(z for sections in splits.values() for z in sections) == list(range(count))
    assert len(splits["val"]) == len(splits["test"]) == max(1, round(0.15 * count)) and splits["train"]


def test_the_phantom_as_sections_for_training(tmp_path, call_script):
    folder = tmp_path / "data" / "phantom-sections"
    command = ["fetch_data.py", "phantom", "--domain", "--shape", 96, 80, 7, "--seed", 2]
    made = call_script(*command, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    kinds = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    organelles = ("raw", "membranes", "mitochondria", "vesicles", "synapses")
    assert kinds == {f"{split}/{what}" for split in ("train", "val", "test") for what in organelles}
    for name in ("README.md", "SYNTHETIC_PHANTOM_NOT_REAL_DATA.txt"):
        assert "not real data" in (folder / name).read_text(encoding="utf-8") and name in made.stdout
    images = {p: np.asarray(Image.open(p)) for p in sorted(folder.rglob("*.png"))}
    assert len(images) == 7 * 5 and {(a.shape, a.dtype.name) for a in images.values()} == {((80, 96), "uint8")}
    for what in organelles[1:]:
        masks = np.stack([a for p, a in images.items() if p.parent.name == what])
        assert set(np.unique(masks)) <= {0, 255}
    pairs = [(a, images[p.parents[1] / "membranes" / p.name]) for p, a in images.items() if p.parent.name == "raw"]
    assert all(raw[mask > 0].mean() < raw[mask == 0].mean() - 20 for raw, mask in pairs)
    before = {path: path.read_bytes() for path in images}
    (folder / "train/raw/99.png").write_bytes(b"left over")
    assert call_script(*command, cwd=tmp_path).returncode == 0
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*.png"))} == before


def test_the_phantom_does_not_overwrite_other_data(tmp_path):
    (tmp_path / "train").mkdir()
    settings = domain_settings((32, 32, 3), None, 0)
    assert "holds other data; name an empty folder" in one_line(write_domain, settings, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "train"]


@pytest.mark.parametrize("name", ["README.md", "em_u8_zyx.tif", "notes.txt"])
def test_the_volume_of_the_phantom_does_not_overwrite_other_data(tmp_path, name):
    (tmp_path / name).write_text("mine")
    settings = phantom_settings((32, 32, 3), None, 0)
    assert "holds other data; name an empty folder" in one_line(write_phantom, settings, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_one_kind_of_phantom_does_not_overwrite_the_other(tmp_path):
    write_phantom(phantom_settings((32, 32, 3), None, 0), tmp_path / "volume")
    assert "holds other data" in one_line(write_domain, domain_settings((32, 32, 3), None, 0), tmp_path / "volume")
    write_domain(domain_settings((32, 32, 3), None, 0), tmp_path / "sections")
    assert "holds other data" in one_line(write_phantom, phantom_settings((32, 32, 3), None, 0), tmp_path / "sections")


def test_an_earlier_phantom_is_replaced_also_one_cut_short(tmp_path, monkeypatch):
    (tmp_path / "Thumbs.db").touch()
    first = write_phantom(phantom_settings((32, 32, 3), None, 0), tmp_path)
    before = {path: path.read_bytes() for path in first}
    write_phantom(phantom_settings((32, 32, 3), None, 1), tmp_path)
    assert (tmp_path / "em_u8_zyx.tif").read_bytes() != before[tmp_path / "em_u8_zyx.tif"]
    with monkeypatch.context() as broken:
        broken.setattr(phantom_files, "write_tiff", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_phantom(phantom_settings((32, 32, 3), None, 0), tmp_path / "new")
    for folder in (tmp_path, tmp_path / "new"):
        again = write_phantom(phantom_settings((32, 32, 3), None, 0), folder)
        assert [path.read_bytes() for path in again[:-1]] == [before[path] for path in first[:-1]]


def test_errors_of_the_phantom_have_the_order_of_the_flag():
    for shape, says in (
        ((4, 32, 5), "sections must be at least 8 voxels wide, got shape 4 32 5 (x y z)"),
        ((32, 16, 0), "shape must be three whole numbers of at least 1, got 32 16 0 (x y z)"),
        ((9999, 8888, 777), "shape 9999 8888 777 (x y z) of (40.0, 8.0, 8.0) nm voxels"),
    ):
        assert says in one_line(phantom_settings, shape, None, 0)


def test_files_that_windows_leaves_do_no_harm_and_no_pipe_is_called_missing(tmp_path, copy):
    for name in ("Thumbs.db", "train/raw/desktop.ini"):
        (copy / "tiny" / name).touch()
    check_layout(TINY, copy / "tiny")
    if not hasattr(os, "mkfifo"):
        return
    piece = copy / "tiny/train/raw/00.png"
    piece.unlink()
    os.mkfifo(piece)
    assert f"{piece} is no file" in one_line(fetch, TINY, tmp_path / "out", local=copy)


def test_errors_name_the_flag_of_this_script(tmp_path, call_script):
    (tmp_path / "file").touch()
    done = call_script("fetch_data.py", "phantom", "--shape", 32, 32, 3, "--output", tmp_path / "file" / "below")
    assert done.returncode == 2 and "--outdir" not in done.stderr and "another --output" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


def test_equal_commands_give_equal_files(tmp_path):
    """Also those that are written as OME-TIFF, whose identifier is otherwise drawn from the clock."""
    settings = phantom_settings((32, 32, 3), None, 4)
    first, second = ([path.read_bytes() for path in write_phantom(settings, tmp_path)] for _ in range(2))
    assert first == second
