"""Debian packages of another release, fetched by the machine's own apt configuration without changing it."""

import os
import re
import shutil
import subprocess

RELEASE = "trixie"
SUITES = (RELEASE, RELEASE + "-backports")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class PackageError(Exception):
    """A package could not be found, fetched or unpacked."""


def run(command, **options):
    """Runs a command to success; what it said goes into the error otherwise. Returns its output."""
    options.setdefault("stderr", subprocess.PIPE)
    options.setdefault("stdout", subprocess.PIPE)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, text=True, check=False, **options)
    if done.returncode:
        said = "\n".join(((done.stdout or "") + (done.stderr or "")).splitlines()[-5:])
        raise PackageError(f"{' '.join(map(str, command))[:120]}: status {done.returncode}\n{said}")
    return done.stdout


def mirror():
    """Where the machine's own sources get its own release from."""
    with open("/etc/os-release", encoding="utf-8") as file:
        codename = re.search(r"^VERSION_CODENAME=\"?(\w+)", file.read(), re.M)
    targets = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"])
    for line in targets.splitlines():
        release, _, uri = line.partition(" ")
        if codename and release == codename[1]:
            return uri
    raise PackageError("the apt sources of this machine name no mirror for its own release")


class Apt:
    """An apt with sources, lists and settings of its own, to which no package is installed."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("state/lists/partial", "cache/archives/partial", "empty"):
            os.makedirs(f"{folder}/{name}", exist_ok=True)
        option = f"[signed-by={KEYRING}] " if os.path.exists(KEYRING) else ""
        uri = mirror()
        self._write("sources.list", "".join(f"deb {option}{uri} {suite} main\n" for suite in SUITES))
        # Backports only where they are asked for.
        self._write("preferences", f"Package: *\nPin: release n={SUITES[1]}\nPin-Priority: 100\n")
        self._write("state/status", "")
        settings = {
            "Dir::Etc::main": f"{folder}/empty/none",
            "Dir::Etc::parts": f"{folder}/empty",
            "Dir::Etc::sourcelist": f"{folder}/sources.list",
            "Dir::Etc::sourceparts": f"{folder}/empty",
            "Dir::Etc::preferences": f"{folder}/preferences",
            "Dir::Etc::preferencesparts": f"{folder}/empty",
            "Dir::State": f"{folder}/state",
            "Dir::State::status": f"{folder}/state/status",
            "Dir::Cache": f"{folder}/cache",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Sandbox::User": "root",
            "APT::Default-Release": "",
            "APT::Install-Recommends": "false",
            "APT::Architecture": "amd64",
        }
        # Proxies, certificates and the like are the machine's; its hooks and preferences are not ours.
        own = run(["apt-config", "dump", "Acquire"])
        self._write("apt.conf", own + "".join(f'{key} "{value}";\n' for key, value in settings.items()))
        self.environment = dict(
            os.environ, APT_CONFIG=f"{folder}/apt.conf", DEBIAN_FRONTEND="noninteractive", LC_ALL="C"
        )

    def _write(self, name, text):
        with open(f"{self.folder}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    def _run(self, *command, cwd=None):
        return run(command, env=self.environment, cwd=cwd)

    def update(self):
        """Reads the lists. Plain `update` ends with 0 when a list could not be fetched."""
        self._run("apt-get", "-q", "update", "--error-on=any")

    def closure(self, packages, into):
        """Fetches packages with all that they depend on; the files."""
        os.makedirs(f"{into}/partial", exist_ok=True)
        self._run("apt-get", "-qy", f"-oDir::Cache::archives={into}", "--download-only", "install", *packages)
        return archives(into)

    def download(self, specifications, into):
        """Fetches these packages alone; the files."""
        os.makedirs(into, exist_ok=True)
        self._run("apt-get", "-q", "download", *specifications, cwd=into)
        return archives(into)

    def version(self, package, suite):
        """The version of a package in a suite."""
        for line in self._run("apt-cache", "madison", package).splitlines():
            fields = [field.strip() for field in line.split("|")]
            if f" {suite}/" in f" {fields[2]}":
                return fields[1]
        raise PackageError(f"{suite} has no package {package}")

    def depends(self, package, version):
        """What a version of a package depends on, as text."""
        shown = self._run("apt-cache", "show", f"{package}={version}")
        return " ".join(re.findall(r"^Depends: (.*)$", shown, re.M))


def archives(folder):
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".deb"))


def unpack(files, into):
    """Puts the contents of packages into a folder. Their scripts do not run."""
    os.makedirs(into, exist_ok=True)
    for file in files:
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", file], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as packed:
            # Folders of one package are links of another, as /lib.
            command = ["tar", "-x", "--keep-directory-symlink", "-C", into]
            done = subprocess.run(command, stdin=packed.stdout, stderr=subprocess.PIPE, text=True, check=False)
            packed.stdout.close()
        if done.returncode or packed.returncode:
            raise PackageError(f"{os.path.basename(file)} cannot be unpacked: {done.stderr}")


def need_programs():
    """Says which program of the machine is missing."""
    for program in ("apt-get", "apt-cache", "apt-config", "dpkg-deb", "tar"):
        if not shutil.which(program):
            raise PackageError(f"{program} not found: the test bed is for Debian and its derivatives")
