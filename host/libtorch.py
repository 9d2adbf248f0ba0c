"""Lays out the CPU parts of libtorch for Eyas, once for all checkouts of a user.

    python3 host/libtorch.py             look, lay out or repair if needed, link the checkout
    python3 host/libtorch.py --verify    the same, and hash every file instead of comparing sizes

The folder is `eyas/libtorch-2.11.0-cpu-x86_64` in the user's cache folder; `.libtorch` in the
checkout links to it, and `.cargo/config.toml` points cargo to the link. A libtorch that the user
names is linked instead: `LIBTORCH=/folder`, or `LIBTORCH_USE_PYTORCH=1` for python's torch package.

Three wheels of the Python package registry hold the parts. They come through pip, which checks
their hashes. Nothing is built in the final place: the folder is filled beside it, then renamed, so
an interruption leaves nothing that looks complete. The folder's `MANIFEST` names every file with
its size and hash; the hash of the manifest itself stands below, so a folder is either exactly the
pinned one or it is laid out again.

Only the standard library of Python 3.8 or newer is used. Exit status: 0 or, with a message and a
hint, 2.
"""

import argparse
import errno
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple


class Wheel(NamedTuple):
    """One file of the Python package registry, and which of its members we keep."""

    package: str
    version: str
    abi: str
    platform: str
    sha256: str
    megabytes: int
    folder: str  # the folder inside the wheel that members are relative to
    members: Tuple[str, ...]  # files, or folders with a closing slash


TORCH_VERSION = "2.11.0"
# The small wheels stand first: what is wrong with the network shows before the large one.
WHEELS = (
    Wheel(
        package="nvidia-cuda-runtime",
        version="13.0.96",
        abi="none",
        platform="manylinux2014_x86_64",
        sha256="7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        megabytes=2,
        folder="nvidia/cu13/",
        members=("lib/libcudart.so.13",),
    ),
    Wheel(
        package="nvidia-cuda-cupti",
        version="13.0.85",
        abi="none",
        platform="manylinux_2_25_x86_64",
        sha256="4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        megabytes=11,
        folder="nvidia/cu13/",
        members=("lib/libcupti.so.13",),
    ),
    Wheel(
        package="torch",
        version=TORCH_VERSION,
        abi="cp311",
        platform="manylinux_2_28_x86_64",
        sha256="7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
        megabytes=531,
        folder="torch/",
        members=("lib/libtorch_cpu.so", "lib/libc10.so", "lib/libgomp.so.1", "include/"),
    ),
)
# torch-sys also links `torch` and `gomp` by name: a linker text and a link stand for them.
TEXTS = {"lib/libtorch.so": "INPUT(-ltorch_cpu)\n"}
LINKS = {"lib/libgomp.so": "libgomp.so.1"}

LAYOUT = f"libtorch-{TORCH_VERSION}-cpu-x86_64"
MANIFEST = "MANIFEST"
# `python3 host/libtorch.py --print-manifest-hash` prints it for the folder at hand.
MANIFEST_SHA256 = "444faf032872177405b6da59fb9690c429ef786adb9aefbc591bdbef572319d0"

# The large wheel twice (pip copies it out of its temporary folder), or once beside what it holds.
BYTES_NEEDED = 1_200_000_000
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

CHECKOUT = Path(__file__).resolve().parent.parent
CHECKOUT_LINK = CHECKOUT / ".libtorch"
AGAIN = "then run `make setup` again"
OWN_LIBTORCH = (
    f"set LIBTORCH to the folder of a libtorch {TORCH_VERSION} of your own (or "
    f"LIBTORCH_USE_PYTORCH=1 to use python's torch package), {AGAIN}"
)
TO_FETCH = (
    "unset LIBTORCH and LIBTORCH_USE_PYTORCH, remove `.libtorch`, and run `make setup`, "
    "which fetches one"
)
MAKE_ROOM = (
    f"free about {BYTES_NEEDED / 1e9:.1f} GB, or set XDG_CACHE_HOME to a folder with more room, "
    f"{AGAIN}"
)


class Trouble(Exception):
    """Something the user has to know: what happened, and what to do about it."""

    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.hint = hint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", action="store_true", help="hash every file of the folder")
    parser.add_argument("--print-manifest-hash", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # A closed terminal or a polite `kill` cleans up as Ctrl-C does.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        if arguments.print_manifest_hash:
            print(sha256_of_text(manifest_of(cache_folder() / LAYOUT)))
            return
        folder = libtorch_of_user() or libtorch_of_cache(arguments.verify)
        link_checkout(folder)
    except Trouble as trouble:
        stop(str(trouble), trouble.hint)
    except KeyboardInterrupt:
        stop("interrupted; nothing half-done is left", "run `make setup` again")
    except zipfile.BadZipFile as error:
        stop(f"a wheel arrived damaged ({error})", "run `make setup` again")
    except OSError as error:
        if error.errno in FULL_DISK:
            stop(str(error), MAKE_ROOM)
        stop(str(error), f"check who may write there; XDG_CACHE_HOME moves the cache; {AGAIN}")


def stop(message: str, hint: str) -> None:
    print(f"libtorch: {message}\nhint: {hint}", file=sys.stderr)
    sys.exit(2)


def say(message: str) -> None:
    print(f"libtorch: {message}", flush=True)


# A libtorch of the user's own ---------------------------------------------------------------------


def libtorch_of_user() -> Optional[Path]:
    """The folder that the environment or an earlier, still valid `.libtorch` points to."""
    # The order of torch-sys: the mere presence of LIBTORCH_USE_PYTORCH wins.
    if "LIBTORCH_USE_PYTORCH" in os.environ:
        folder, origin = folder_of_pytorch(), "LIBTORCH_USE_PYTORCH"
    elif os.environ.get("LIBTORCH"):
        folder, origin = Path(os.environ["LIBTORCH"]), "LIBTORCH"
        if not folder.is_absolute():
            raise Trouble(
                f"LIBTORCH is `{folder}`, a relative path; cargo reads it from other folders",
                f"give the absolute path: LIBTORCH={folder.resolve()}",
            )
        if folder == CHECKOUT_LINK:
            return libtorch_of_earlier_link()
    else:
        return libtorch_of_earlier_link()
    version = check_libtorch(folder, origin)
    say(f"{folder} ({version}; from {origin})")
    return folder


def libtorch_of_earlier_link() -> Optional[Path]:
    """What `.libtorch` points to, if an earlier run linked a libtorch of the user there."""
    if not CHECKOUT_LINK.is_symlink():
        return None
    folder = Path(os.readlink(CHECKOUT_LINK))
    if folder.name == LAYOUT or not folder.is_dir():
        return None
    version = check_libtorch(folder, ".libtorch")
    say(f"{folder} ({version}; `.libtorch` links to it, remove the link to fetch the pinned one)")
    return folder


def folder_of_pytorch() -> Path:
    python = "python" if "VIRTUAL_ENV" in os.environ else "python3"
    code = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    answer = subprocess.run(
        [python, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if answer.returncode != 0 or not answer.stdout.strip():
        raise Trouble(
            f"LIBTORCH_USE_PYTORCH is set, but `{python}` has no torch package",
            f"`{python} -m pip install torch=={TORCH_VERSION}`, or {TO_FETCH}",
        )
    return Path(answer.stdout.strip())


def check_libtorch(folder: Path, origin: str) -> str:
    """Refuses what cannot be a libtorch of the right version; returns the version in words."""
    for part in ("lib", "include"):
        if not (folder / part).is_dir():
            raise Trouble(
                f"{origin} points to `{folder}`, which has no folder `{part}`",
                f"a libtorch holds lib/ and include/: set {origin} to such a folder, or {TO_FETCH}",
            )
    version = version_of(folder)
    if version is None:
        return f"version not readable, {wanted_series()} is needed"
    if not version.startswith(wanted_series() + "."):
        raise Trouble(
            f"{origin} points to `{folder}`, torch {version}; Eyas needs {wanted_series()}",
            f"point to a libtorch {TORCH_VERSION}, or {TO_FETCH}",
        )
    return f"torch {version}"


def wanted_series() -> str:
    return TORCH_VERSION.rsplit(".", 1)[0]


def version_of(folder: Path) -> Optional[str]:
    build_version = folder / "build-version"  # the zip files of libtorch
    if build_version.is_file():
        return build_version.read_text().strip()
    version_py = folder / "version.py"  # python's torch package
    if version_py.is_file():
        found = re.search(r"^__version__ = '([^']+)'", version_py.read_text(), re.MULTILINE)
        if found:
            return found.group(1)
    header = folder / "include/torch/headeronly/version.h"
    if header.is_file():
        define = r"#define TORCH_VERSION_(MAJOR|MINOR|PATCH) (\d+)"
        numbers = dict(re.findall(define, header.read_text()))
        if len(numbers) == 3:
            return "{MAJOR}.{MINOR}.{PATCH}".format(**numbers)
    return None


# The pinned libtorch in the cache -----------------------------------------------------------------


def libtorch_of_cache(every_byte: bool) -> Path:
    """The pinned folder: found intact, or laid out now."""
    check_platform()
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / LAYOUT
    # Without a lock for the common case: a complete folder is never changed in place.
    fault = fault_of(folder, every_byte)
    if fault is None:
        say(f"{folder} (torch {TORCH_VERSION}, CPU)")
        return folder
    with Lock(cache / f"{LAYOUT}.lock"):
        remove_leftovers(cache)
        fault = fault_of(folder, every_byte)  # another run may have just done the work
        if fault is not None and folder.is_dir() and adopt(folder):
            fault = None
        if fault is not None:
            if folder.exists():
                say(f"{fault}; laying it out again")
            lay_out(folder)
    say(f"{folder} (torch {TORCH_VERSION}, CPU)")
    return folder


def check_platform() -> None:
    machine = f"{platform.system()} {platform.machine()}"
    libc = "-".join(part for part in platform.libc_ver() if part)
    if machine != "Linux x86_64":
        raise Trouble(f"the pinned libtorch is for Linux x86_64, this is {machine}", OWN_LIBTORCH)
    newest = [int(number) for number in re.findall(r"\d+", platform.libc_ver()[1])[:2]]
    if not libc.startswith("glibc") or newest < [2, 28]:
        raise Trouble(
            f"the pinned libtorch needs glibc 2.28 or newer, here is {libc or 'another libc'}",
            OWN_LIBTORCH,
        )


def cache_folder() -> Path:
    # The specification of XDG_CACHE_HOME: relative paths are ignored.
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "eyas"


def fault_of(folder: Path, every_byte: bool) -> Optional[str]:
    """What is wrong with a folder, or None: by the manifest and sizes, or by every file's hash."""
    try:
        manifest = (folder / MANIFEST).read_text()
    except (OSError, UnicodeDecodeError):
        return f"`{folder}` is not complete (no {MANIFEST})"
    if sha256_of_text(manifest) != MANIFEST_SHA256:
        return f"`{folder}` is not the pinned libtorch (its {MANIFEST} differs)"
    for line in manifest.splitlines():
        digest, size, name = line.split(" ", 2)
        path = folder / name
        try:
            if os.path.getsize(path) != int(size):
                return f"`{path}` is damaged (size {os.path.getsize(path)}, not {size})"
            if every_byte and sha256_of_file(path) != digest:
                return f"`{path}` is damaged (its hash differs)"
        except OSError as error:
            return f"`{path}` is not readable ({error.strerror})"
    return None


def adopt(folder: Path) -> bool:
    """Takes over a folder without a manifest if its content is what we would have laid out."""
    if (folder / MANIFEST).exists():
        return False
    manifest = manifest_of(folder)
    if sha256_of_text(manifest) != MANIFEST_SHA256:
        return False
    partial = folder.parent / f"{LAYOUT}.partial-{os.getpid()}"
    partial.write_text(manifest)
    os.replace(partial, folder / MANIFEST)
    return True


def manifest_of(folder: Path) -> str:
    """One line `sha256 size path` for every file below the folder, in the order of the paths."""
    names = sorted(
        os.path.relpath(os.path.join(root, name), folder)
        for root, _, files in os.walk(folder)
        for name in files
    )
    return "".join(
        f"{sha256_of_file(folder / name)} {os.path.getsize(folder / name)} {name}\n"
        for name in names
        if name != MANIFEST
    )


def sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


class Lock:
    """One run lays out at a time; the system frees the lock however its holder ends."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        import fcntl  # not on Windows; there the platform was refused before

        self.file = open(self.path, "w")
        waiting = False
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not waiting:
                    say("another run is laying it out; waiting for it")
                waiting = True
                time.sleep(0.5)
            except OSError:
                return  # a file system without locks: the renaming still keeps runs apart

    def __exit__(self, *_: object) -> None:
        self.file.close()


def remove_leftovers(cache: Path) -> None:
    """Removes what killed runs left; called under the lock, so nobody works in there."""
    for path in cache.glob(f"{LAYOUT}.partial-*"):
        remove(path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists() or path.is_symlink():
        path.unlink()


def lay_out(folder: Path) -> None:
    """Fetches the wheels, fills a folder beside the final one, and renames it into place."""
    check_room(folder.parent)
    check_pip()
    partial = Path(tempfile.mkdtemp(prefix=f"{LAYOUT}.partial-", dir=folder.parent))
    try:
        filled = partial / "filled"
        for wheel in WHEELS:
            file = fetch(wheel, partial)
            unpack(wheel, file, filled)
            file.unlink()
        for name, text in TEXTS.items():
            (filled / name).write_text(text)
        for name, target in LINKS.items():
            (filled / name).symlink_to(target)
        manifest = manifest_of(filled)
        if sha256_of_text(manifest) != MANIFEST_SHA256:
            raise Trouble(
                "what arrived on the disk is not what was unpacked",
                "run `make setup` again; if it stays so, check the disk",
            )
        (filled / MANIFEST).write_text(manifest)
        for path in (filled / "lib").iterdir():
            flush_to_disk(path)
        filled.chmod(0o755)
        if folder.exists() or folder.is_symlink():
            folder.rename(partial / "replaced")  # programs that have it open keep their files
        filled.rename(folder)
    finally:
        remove(partial)


def flush_to_disk(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def check_room(cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < BYTES_NEEDED:
        raise Trouble(
            f"`{cache}` has {free / 1e9:.2f} GB free; fetching libtorch needs "
            f"{BYTES_NEEDED / 1e9:.1f} GB for a moment and 0.5 GB afterwards",
            MAKE_ROOM,
        )


def check_pip() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "--version"],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if answer.returncode != 0:
        raise Trouble(
            f"`{sys.executable}` has no pip, which fetches libtorch",
            "install it (Debian, Ubuntu: `apt-get install python3-pip`; Fedora: `dnf install "
            f"python3-pip`; elsewhere: `python3 -m ensurepip`), {AGAIN}",
        )


def fetch(wheel: Wheel, partial: Path) -> Path:
    """Has pip download one wheel into the folder; pip refuses a file with another hash."""
    label = f"{wheel.package} {wheel.version} ({wheel.megabytes} MB)"
    say(f"fetching {label}")
    downloads, scratch = partial / "wheels", partial / "pip"
    for path in (downloads, scratch):
        path.mkdir(exist_ok=True)
    requirements = partial / "requirements.txt"
    requirements.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    # Fixed tags: every python3 fetches the same file, whatever its own version.
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes",
        "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input",
        "--progress-bar=off", "--python-version=3.11", "--implementation=cp",
        f"--abi={wheel.abi}", f"--platform={wheel.platform}",
        f"--dest={downloads}", f"--requirement={requirements}",
    ]
    # fmt: on
    log = partial / "pip.log"
    with open(log, "wb") as output:
        # pip keeps its own temporary files with ours: same disk, removed with them.
        environment = dict(os.environ, TMPDIR=str(scratch), PYTHONWARNINGS="ignore")
        pip = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            watch(pip, partial, wheel)
        finally:
            if pip.poll() is None:
                pip.terminate()
                pip.wait()
    files = list(downloads.glob("*.whl"))
    if pip.returncode != 0 or len(files) != 1:
        raise trouble_of_pip(wheel, log.read_text(errors="replace"))
    return files[0]


def watch(pip: "subprocess.Popen[bytes]", partial: Path, wheel: Wheel) -> None:
    """Waits for pip; on a terminal a line shows how much of the wheel has arrived."""
    shown = False
    while pip.poll() is None:
        time.sleep(0.2)
        if sys.stdout.isatty():
            arrived = min(largest_file(partial / "pip") / 1e6, wheel.megabytes)
            print(f"\rlibtorch: {arrived:5.0f} of {wheel.megabytes} MB ", end="", flush=True)
            shown = True
    if shown:
        print("\r" + " " * 40 + "\r", end="", flush=True)


def largest_file(folder: Path) -> int:
    sizes: List[int] = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            pass  # pip has just moved it
    return max(sizes)


def trouble_of_pip(wheel: Wheel, log: str) -> Trouble:
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    last = "\n".join(f"    {line[:200]}" for line in lines[-3:]) or "    (it said nothing)"
    what = f"{wheel.package}=={wheel.version}"
    if "No space left" in log or "Disk quota exceeded" in log:
        return Trouble(
            f"the disk filled up while pip fetched {what}",
            MAKE_ROOM,
        )
    if "DO NOT MATCH THE HASHES" in log:
        return Trouble(
            f"the file that came for {what} is not the pinned one, so it was thrown away:\n{last}",
            "a mirror or proxy may hand out another file: look at PIP_INDEX_URL and "
            f"`pip config list`, {AGAIN}",
        )
    return Trouble(
        f"pip could not fetch {what}; its last lines:\n{last}",
        f"check the network (a proxy goes in HTTPS_PROXY, a mirror in PIP_INDEX_URL), {AGAIN}; "
        f"without a network, {OWN_LIBTORCH}",
    )


def unpack(wheel: Wheel, file: Path, filled: Path) -> None:
    """Copies the members we keep; zipfile checks their CRCs on the way."""
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = kept_name(wheel, info)
            if name is None:
                continue
            target = filled / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)


def kept_name(wheel: Wheel, info: zipfile.ZipInfo) -> Optional[str]:
    """Where a member of the wheel goes in the folder; None if we do not keep it."""
    if info.is_dir() or not info.filename.startswith(wheel.folder):
        return None
    name = info.filename[len(wheel.folder) :]
    for member in wheel.members:
        if name == member or (member.endswith("/") and name.startswith(member)):
            return name
    return None


# The checkout -------------------------------------------------------------------------------------


def link_checkout(folder: Path) -> None:
    """Points `.libtorch` to the folder, replacing an older link in one step."""
    if CHECKOUT_LINK.is_symlink():
        if os.readlink(CHECKOUT_LINK) == str(folder):
            return
    elif CHECKOUT_LINK.exists():
        raise Trouble(
            f"`{CHECKOUT_LINK}` is in the way: it is not a link that this script made",
            "move it elsewhere and set LIBTORCH to it, or remove it, then run `make setup` again",
        )
    fresh = CHECKOUT / f".libtorch.{os.getpid()}.tmp"
    fresh.symlink_to(folder)
    os.replace(fresh, CHECKOUT_LINK)


if __name__ == "__main__":
    main()
