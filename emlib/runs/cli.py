"""What all scripts share on the command line: flags, configuration files, errors, threads."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from emlib import __version__
from emlib.errors import UserError

PRESETS = {"none": (256, 256, 64), "safe8gb": (192, 192, 48), "medium": (256, 256, 48)}
MAX_SEED = 2**63 - 1  # what the run log can hold
INTERRUPTED = 130  # the shell's code for a program ended by Ctrl-C


class Parser(argparse.ArgumentParser):
    """An argument parser whose flags accept ``_`` and ``-`` alike and whose errors are one line."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("formatter_class", _Formatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        """Parse; a flag may be spelled with ``-`` for ``_`` and the other way round."""
        known = self._option_string_actions
        for name in [name for name in known if name.startswith("--")]:
            for spelling in (name[2:].replace("-", "_"), name[2:].replace("_", "-")):
                known.setdefault(f"--{spelling}", known[name])
        return super().parse_known_args(args, namespace)

    def _get_value(self, action: argparse.Action, arg_string: str):
        """Convert a value; an empty one, as an unset variable of the shell gives, means nothing and is refused."""
        if isinstance(arg_string, str) and not arg_string.strip():
            raise argparse.ArgumentError(action, "the value is empty; give one, or leave the flag out")
        return super()._get_value(action, arg_string)

    def error(self, message: str):
        """Print one line and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Show a flag's long name and its value once."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        value = (
            "" if action.nargs == 0 else " " + self._format_args(action, self._get_default_metavar_for_optional(action))
        )
        return next((n for n in action.option_strings if n.startswith("--")), action.option_strings[0]) + value


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return an argparse type: a number of this kind above zero."""

    def convert(text: str):
        value = kind(text)
        if not value > 0 or value == float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    convert.__name__ = f"positive {kind.__name__}"  # argparse puts the name into its message
    return convert


def at_least_zero(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return an argparse type: a finite number of this kind, 0 or above."""

    def convert(text: str):
        value = kind(text)
        if not 0 <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
        return value

    convert.__name__ = kind.__name__
    return convert


def seed(text: str) -> int:
    """Return a whole number from 0 to ``MAX_SEED``; an argparse type."""
    value = int(text)
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"must be from 0 to {MAX_SEED} (2^63 - 1), got {text}")
    return value


def finite(text: str) -> float:
    """Return a number that is neither NaN nor infinite; an argparse type."""
    value = float(text)
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
    return value


def add_volume(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the flags that say which box of which volume is read; return their group."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--dataset",
        help=".npy, .tif, .mrc, a folder of PNG/TIFF sections, file.h5:dataset, .zarr, sample://phantom, "
        "precomputed://FOLDER or ADDRESS, or bossdb://collection/experiment/channel (default: the C. elegans larva of "
        "Mulcahy et al. 2022 on BossDB)",
    )
    size = {"type": positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
    group.add_argument("--voxel_size", help="nm; wins over the file's", **size)
    sizes = ", ".join(f"{name} {' '.join(map(str, cutout))}" for name, cutout in PRESETS.items())
    group.add_argument("--preset", choices=PRESETS, default="none", help=f"size of the cutout, X Y Z: {sizes}")
    voxels = {"type": int, "nargs": 3, "metavar": ("X", "Y", "Z")}
    group.add_argument("--cutout", help="size in voxels; wins over --preset", **voxels)
    group.add_argument(
        "--offset", help="first voxel (default: the centre, moved by up to 5 %% drawn from --seed)", **voxels
    )
    level = {"type": at_least_zero(int), "default": 0, "metavar": "N"}
    group.add_argument("--resolution", help="of BossDB or precomputed: coarser levels (default: 0)", **level)
    timeout = {"type": positive(float), "default": 30.0, "metavar": "S"}
    group.add_argument("--network_timeout", help="seconds per request (default: 30)", **timeout)
    group.add_argument("--refresh", action="store_true", help="fetch from BossDB anew what <outdir>/cache has kept")
    group.add_argument(
        "--fill_missing", action="store_true", help="take chunks that a .zarr or precomputed volume lacks as empty"
    )
    group.add_argument("--boss_config", metavar="FILE", help="host and token, in the form of intern.cfg")
    group.add_argument("--list", metavar="bossdb://COLLECTION", help="print what a BossDB collection holds, and exit")
    group.add_argument(
        "--no_fallback", action="store_true", help="fail when BossDB is out of reach; no phantom instead"
    )
    return group


def boss_resolution(args: argparse.Namespace) -> int:
    """Return ``--resolution``, which means something for BossDB and precomputed volumes alone.

    Raises
    ------
    UserError
        If it is given and nothing that is read comes from there.
    """
    read = [args.dataset or "bossdb://", args.labels or "", args.truth or ""]  # BossDB is the default
    if args.resolution and not any(name.startswith(("bossdb://", "precomputed://")) for name in read):
        raise UserError(
            f"--resolution {args.resolution} is for bossdb:// and precomputed:// alone and {args.dataset} is read as "
            "it is; leave it out, or give the level of your choice as a volume of its own"
        )
    return args.resolution


def add_pair(parser: argparse.ArgumentParser, what: str, *, voxels: bool = True) -> argparse._ArgumentGroup:
    """Add ``--pred`` and ``--truth``, and with ``voxels`` the voxel size; return their group."""
    group = parser.add_argument_group("input")
    group.add_argument("--pred", required=True, metavar="PATH", help=f"predicted {what}")
    group.add_argument("--truth", required=True, metavar="PATH", help="the truth, likewise")
    if voxels:
        size = {"type": positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
        group.add_argument("--voxel_size", help="nm (default: the file's)", **size)
    return group


def add_partner_labels(group: argparse._ArgumentGroup) -> None:
    """Add the label volumes that tell which predicted neurite is which true one."""
    group.add_argument("--pred_labels", metavar="LABELS", help="predicted neurites, to map ids by overlap")
    group.add_argument("--truth_labels", metavar="LABELS", help="true neurites of the same shape")


def add_corrections(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """Add the flags that say which sections of a run were corrected, and to what; return their group."""
    group = parser.add_argument_group(title)
    section = {"type": at_least_zero(int), "nargs": "+", "metavar": "Z"}
    group.add_argument(
        "--slices", help="corrected sections (default: <outdir>/tables/proofread_slices.json)", **section
    )
    group.add_argument(
        "--labels",
        metavar="FILE",
        help="labels with the corrected sections (default: <outdir>/data/neurite_labels_corrected_i32_zyx.npy)",
    )
    size = {"type": positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
    group.add_argument("--voxel_size", help="nm; wins over the files'", **size)
    return group


def add_settings(group: argparse._ArgumentGroup) -> None:
    """Add the flags that change and list settings."""
    named = {"nargs": "+", "action": "extend", "default": [], "metavar": "NAME=VALUE"}
    group.add_argument("--set", help="any setting that --list_settings names", **named)
    group.add_argument("--list_settings", action="store_true", help="print all settings and exit")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every script has: where to write, how many threads, how much to say."""
    group = parser.add_argument_group("run")
    group.add_argument("--outdir", default="outputs", type=Path, help="folder for all results (default: outputs)")
    group.add_argument("--config", type=Path, metavar="FILE.yaml", help="flags by name; flags typed here win")
    group.add_argument("--seed", type=seed, default=0, help="for everything that is drawn at random (default: 0)")
    group.add_argument("--threads", type=positive(int), help="cores to use (default: OMP_NUM_THREADS, else all)")
    group.add_argument("--quiet", action="store_true", help="print errors only")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    group.add_argument("--version", action="version", version=f"emlib {__version__}")


def add_history(parser: argparse.ArgumentParser) -> None:
    """Add the flags that ask what ran before, run it again, or run it on several places; one of them at a time."""
    group = parser.add_argument_group("runs on record, in <outdir>/runs and <outdir>/cutout_*/runs")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--runs", action="store_true", help="list them, newest first, and exit")
    one.add_argument(
        "--show", metavar="RUN", help="all that is on record of a run: its id, the beginning of it, or last"
    )
    one.add_argument("--export", choices=("csv",), help="print the list as CSV")
    one.add_argument("--rerun", metavar="RUN", help="run its settings again, into its folder, and compare the files")
    count = {"type": positive(int), "metavar": "N"}
    one.add_argument(
        "--cutouts", help="run N places (seed, seed + 1, …) into <outdir>/cutout_00 … and average", **count
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; ``--config FILE.yaml`` stands for flags that come before those typed.

    Threads are set here, before NumPy is loaded, so that its libraries obey: ``--threads``, else ``OMP_NUM_THREADS``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    early = Parser(prog=parser.prog, add_help=False, usage=argparse.SUPPRESS)
    early.add_argument("--config", type=Path)
    config = early.parse_known_args(argv)[0].config
    if config is not None:
        chosen, at = _subcommand(parser, argv)
        argv = argv[:at] + _config_flags(chosen, config) + argv[at:]
    args = parser.parse_args(argv)
    threads = args.threads or _threads_of_environment()
    if threads:
        from emlib.threads import set_threads

        set_threads(threads)
    if args.threads:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(args.threads)
    return args


def _threads_of_environment() -> int | None:
    """``OMP_NUM_THREADS``, as batch systems set it; None where it is not a number above zero.

    OpenMP allows a list, one number for each level of nesting; there is one level here.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _subcommand(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.ArgumentParser, int]:
    """The parser whose flags a configuration names, and where in the command line they begin."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for at, word in enumerate(argv):
                if word in action.choices:
                    return action.choices[word], at + 1
    return parser, 0


def _config_flags(parser: argparse.ArgumentParser, path: Path) -> list[str]:
    """Read a YAML file of flag names and values and return it as a command line."""
    import yaml

    if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
        raise UserError(f"--config {path} is no file; name a YAML file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if len(text) > 2**16 or sum(map(text.count, "[{")) > 500:  # PyYAML takes minutes for what nests deeply
            raise UserError(f"--config {path} is no list of flags: it is too long or nests too deeply")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):  # a few of them make gigabytes
            raise UserError(f"--config {path} refers to another part of itself with *; write the value out")
        content = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"cannot read --config {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or no such date or number
        raise UserError(f"--config {path} is not YAML: {' '.join(str(error).split())[:300]}") from error
    if content is None:
        return []
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold lines of the form 'flag: value'")
    known = {name[2:].replace("-", "_"): action for action in parser._actions for name in action.option_strings}
    flags = []
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known or name in ("config", "help", "version"):
            raise UserError(
                f"--config {path}: unknown key {str(key)[:60]!r}; the keys are flags of {parser.prog} --help"
            )
        if known[name].nargs == 0:
            if not isinstance(value, bool):
                raise UserError(f"--config {path}: {key} is on or off, not {value!r}")
            flags += [f"--{name}"] if value else []
        elif value is not None:
            values = value if isinstance(value, list) else [value]
            if wrong := [v for v in values if isinstance(v, (list, dict, set, tuple)) or str(v).startswith("--")]:
                raise UserError(f"--config {path}: {key} is a value or a list of values, not {str(wrong[0])[:60]!r}")
            flags += [f"--{name}", *map(str, values)]
    return flags


def command_line() -> str:
    """Return the command as typed, quoted for a shell."""
    return shlex.join(["python", *sys.argv])


def run(
    main: Callable[[], int | None],
    *,
    outdir: str = "--outdir",
    smaller: str = "use a smaller --cutout or --preset safe8gb",
) -> int:
    """Call a script's main function and turn what a user can cause into one line on stderr and exit code 2.

    Parameters
    ----------
    main : function
        Returns the exit code, or None for 0.
    outdir : str
        What the script calls ``--outdir``, which errors name.
    smaller : str
        What to do where memory does not suffice.

    Returns
    -------
    int
        The exit code.
    """
    debug = "--debug" in sys.argv
    try:
        code = main() or 0
        sys.stdout.flush()  # here, where a full disk behind it can still be told
        return code
    except UserError as error:
        if debug:
            raise
        print(f"error: {str(error).replace('--outdir', outdir)}", file=sys.stderr)
        return 2
    except MemoryError as error:
        if debug:
            raise
        print(f"error: out of memory ({error}); {smaller}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted: finished files are whole; run it again, with --resume where there is one", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it may be what is full
        print(f"error: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        return 2
