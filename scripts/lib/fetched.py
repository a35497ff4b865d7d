"""What demo and benchmarks fetch once and keep: folders with a manifest that shows whether they are whole."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time

PYTHON = "/usr/bin/python3"

PHOTOGRAPHS_PACKAGE = "lomiri-wallpapers-16.04"  # the same in Debian 12 and 13
PHOTOGRAPHS_FOLDER = "usr/share/backgrounds"
PILLOW = "11.3.0"  # has wheels for the Pythons of Debian 12 and 13


class FetchFailed(Exception):
    """Something could not be fetched; the text says what, and what was said."""


@contextlib.contextmanager
def locked(path, say, who):
    """Holds a lock file, so that two do not set up at the same time."""
    with open(path, "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another {who} is setting up; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def command(argv, what, **options):
    """Runs a command that is not worth showing; its output is shown when it fails."""
    try:
        result = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options
        )
    except FileNotFoundError:
        raise FetchFailed(f"{what} failed: there is no {argv[0]}") from None
    if result.returncode != 0:
        tail = result.stdout.decode(errors="replace").strip().splitlines()[-12:]
        raise FetchFailed("\n".join([f"{what} failed: {argv[0]} ended with status {result.returncode}", *tail]))


def listing(folder):
    """Names and digests of all files below a folder."""
    result = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            result[os.path.relpath(path, folder)] = digest
    return result


def write_atomically(path, write):
    scratch = f"{path}.{os.getpid()}"
    with open(scratch, "w", encoding="utf-8") as file:
        write(file)
    os.replace(scratch, path)


def cached(parent, name, key, say, fetch):
    """PARENT/NAME, filled by fetch(folder) unless it is there, whole, and made for the same key."""
    folder = os.path.join(parent, name)
    manifest = os.path.join(parent, f"{name}.manifest.json")
    try:
        with open(manifest, encoding="utf-8") as file:
            known = json.load(file)
        if known["key"] != key:
            say("an earlier run left another version")
        elif known["files"] == listing(folder):
            say("kept from an earlier run")
            return folder
        else:
            say("what an earlier run left is damaged; fetching it again")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        say("what an earlier run left is damaged; fetching it again")
    begin = time.monotonic()
    fresh = f"{folder}.new"
    for stale in (fresh, folder):
        shutil.rmtree(stale, ignore_errors=True)
    os.makedirs(fresh)
    try:
        fetch(fresh)
        files = listing(fresh)
        os.rename(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    write_atomically(manifest, lambda file: json.dump({"key": key, "files": files}, file))
    say(f"done in {time.monotonic() - begin:.1f} s")
    return folder


def from_debian(package, folder, wanted, names, folder_inside):
    """Moves files out of a Debian package into a folder, without installing it. `wanted` says by whom."""
    scratch = os.path.join(folder, "package")
    os.makedirs(os.path.join(scratch, "tree"))
    as_root = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    command(["apt-get", "-q", *as_root, "download", package], f"downloading {package}", cwd=scratch)
    packages = [name for name in os.listdir(scratch) if name.endswith(".deb")]
    if len(packages) != 1:
        raise FetchFailed(f"downloading {package} left {len(packages)} packages instead of one")
    command(["dpkg", "-x", packages[0], "tree"], f"unpacking {packages[0]}", cwd=scratch)
    for name in names:
        source = os.path.join(scratch, "tree", folder_inside, name)
        if not os.path.exists(source):
            raise FetchFailed(f"{packages[0]} holds no {name}; this version of the package is not known to the {wanted}")
        os.rename(source, os.path.join(folder, name))
    shutil.rmtree(scratch)


def python_version():
    return subprocess.run([PYTHON, "--version"], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def from_pip(requirements, folder, *options):
    """Installs Python packages into a folder of their own."""
    tools = f"{folder}.tools"
    shutil.rmtree(tools, ignore_errors=True)  # of somebody who was killed
    try:
        command([PYTHON, "-m", "venv", tools], "making a virtual environment")
        pip = [os.path.join(tools, "bin", "pip"), "--disable-pip-version-check", "--no-cache-dir"]
        options = ["--no-compile", "--only-binary=:all:", *options, "--target", folder]
        command([*pip, "install", *options, *requirements], f"fetching {', '.join(requirements)}")
    finally:
        shutil.rmtree(tools, ignore_errors=True)
