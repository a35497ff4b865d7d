"""The guest's kernels and root file system, made of Debian packages once per content."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import time

from . import packages
from .packages import RELEASE, PackageError, run

HERE = os.path.dirname(os.path.realpath(__file__))

# Name, suite. The flavour for clouds boots faster and has all that the tests need.
KERNELS = {"6.12": RELEASE, "7": RELEASE + "-backports"}
KERNEL_PACKAGE = "linux-image-cloud-amd64"

# What the host runs; it needs nothing of it installed.
TOOLS = "qemu-system-x86 qemu-utils virtiofsd e2fsprogs zstd xz-utils".split()

# apt knows no installed package there, so the essential ones have to be named too.
GUEST = """base-files base-passwd bash bsdutils coreutils dash debianutils diffutils findutils grep gzip hostname
 libc-bin login mawk mount ncurses-base procps psmisc sed sysvinit-utils tar util-linux kmod iproute2 systemd
 systemd-sysv dbus udev containerd runc busybox-static numactl python3 ca-certificates strace ndctl daxctl cxl
 libgcrypt20 liblz4-1 libzstd1 libsystemd0 libcap2""".split()

# The parts of a kernel's modules that a guest may load.
MODULES = """arch/x86/crypto crypto drivers/acpi drivers/block drivers/cxl drivers/dax drivers/firmware
 drivers/nvdimm drivers/virtio drivers/net/dummy drivers/net/veth fs/ext4 fs/jbd2 fs/mbcache fs/overlayfs
 fs/squashfs lib mm net/802 net/bridge net/core net/llc net/netfilter""".split()

# Units that only cost time there.
MASKED = """systemd-timesyncd systemd-resolved systemd-networkd systemd-hwdb-update systemd-logind systemd-journal-flush
 systemd-update-utmp systemd-random-seed ldconfig systemd-sysusers systemd-journal-catalog-update systemd-firstboot
 systemd-machine-id-commit systemd-remount-fs systemd-udev-settle systemd-modules-load getty@tty1
 serial-getty@ttyS0""".split()


def say(text):
    print(f"vm: {text}", file=sys.stderr, flush=True)


def content_hash():
    """Changes with all that an image is made of, but for the versions of the packages; see `--refresh`."""
    digest = hashlib.sha256()
    files = [f"{HERE}/image.py", f"{HERE}/packages.py"]
    files += [f"{HERE}/guest/{name}" for name in os.listdir(f"{HERE}/guest")]
    for file in sorted(files):
        with open(file, "rb") as opened:
            digest.update(os.path.basename(file).encode() + b"\0" + opened.read() + b"\0")
    return digest.hexdigest()[:16]


def inventory(folder):
    """Name, size and time of change of every file, in which damage shows."""
    found = []
    for path, _, names in os.walk(folder):
        if os.path.relpath(path, folder).split("/")[0] == "snapshots":
            continue
        for name in names:
            status = os.lstat(f"{path}/{name}")
            if name not in ("manifest.json", "lock") and stat.S_ISREG(status.st_mode):
                relative = os.path.relpath(f"{path}/{name}", folder)
                found.append([relative, status.st_size, status.st_mtime_ns])
    return sorted(found)


def read_manifest(folder):
    try:
        with open(f"{folder}/manifest.json", encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


@contextlib.contextmanager
def locked(path, kind, patience):
    """Holds a lock on a file. Several runs at once wait for each other, but not for ever."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise PackageError(f"another run holds {path}") from None
                time.sleep(0.2)
        yield


class Image:
    """A folder with kernels, root file system and the tools of the host."""

    def __init__(self, store):
        self.store = store
        self.folder = f"{store}/{content_hash()}"
        self.rootfs = f"{self.folder}/rootfs.ext4"

    def is_complete(self):
        return read_manifest(self.folder).get("inventory") == inventory(self.folder)

    def kernel(self, name):
        return f"{self.folder}/kernels/{name}"

    def tool(self, path, *arguments):
        """A program of the tools, by their own loader, so that it runs on any release."""
        tools = f"{self.folder}/tools"
        loader = [f"{tools}/usr/lib64/ld-linux-x86-64.so.2", "--library-path", f"{tools}/usr/lib/x86_64-linux-gnu"]
        return [*loader, f"{tools}/{path}", *arguments]

    def in_use(self):
        """While it is held, the folder is not removed."""
        return locked(f"{self.folder}/lock", fcntl.LOCK_SH, 60)

    def ensure(self, refresh=False):
        """Builds the image unless it is there. What a broken download spoils is fetched again, once."""
        if self.is_complete() and not refresh:
            return
        if os.geteuid() != 0:
            raise PackageError("the image of the guest is built as root: owners of its files")
        packages.need_programs()
        with locked(f"{self.store}/lock", fcntl.LOCK_EX, 3600):
            if self.is_complete() and not refresh:
                return
            work = f"{self.store}/work"
            for last in (False, True):
                shutil.rmtree(work, ignore_errors=True)
                try:
                    Builder(work).build()
                    break
                except (PackageError, OSError) as error:
                    if last:
                        raise
                    say(f"starting over: {error}")
            with locked(f"{work}/image/lock", fcntl.LOCK_SH, 1):
                shutil.rmtree(self.folder, ignore_errors=True)
                os.rename(f"{work}/image", self.folder)
            shutil.rmtree(work)
            self._remove_others()

    def _remove_others(self):
        """Images of other contents, unless one is in use."""
        for name in os.listdir(self.store):
            folder = f"{self.store}/{name}"
            if folder == self.folder or len(name) != 16 or not os.path.isdir(folder):
                continue
            with contextlib.suppress(PackageError), locked(f"{folder}/lock", fcntl.LOCK_EX, 0):
                shutil.rmtree(folder, ignore_errors=True)


class Builder:
    """Builds an image in `work/image`."""

    def __init__(self, work):
        self.work, self.image = work, f"{work}/image"
        self.root = f"{work}/root"
        self.started = time.monotonic()
        self.versions = {}
        self.releases = {}

    def step(self, text):
        say(f"[{time.monotonic() - self.started:4.0f} s] {text}")

    def build(self):
        os.makedirs(f"{self.image}/kernels")
        self.step("reading package lists")
        apt = packages.Apt(f"{self.work}/apt")
        apt.update()
        self.step("fetching QEMU and tools")
        packages.unpack(apt.closure(TOOLS, f"{self.work}/tools"), f"{self.image}/tools")
        shutil.rmtree(f"{self.image}/tools/usr/share/doc", ignore_errors=True)
        self.step("fetching the guest's packages")
        guest = apt.closure(GUEST, f"{self.work}/guest")
        for name, suite in KERNELS.items():
            self.step(f"fetching kernel {name}")
            self._fetch_kernel(apt, name, suite)
        self.step("unpacking the guest")
        packages.unpack(guest, self.root)
        self.versions.update(split_name(file) for file in guest)
        self._fix_root()
        for name in KERNELS:
            self._install_kernel(name)
        self.step("making the image")
        self._make_file_system()
        manifest = {"versions": self.versions, "kernels": self.releases, "inventory": inventory(self.image)}
        with open(f"{self.image}/manifest.json", "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
        self.step("done")

    def _tool(self, path, *arguments):
        image = Image(self.work)
        image.folder = self.image
        return image.tool(path, *arguments)

    def _fetch_kernel(self, apt, name, suite):
        version = apt.version(KERNEL_PACKAGE, suite)
        rest, wanted = [KERNEL_PACKAGE], []
        while rest:
            for word in apt.depends(rest.pop(), version).replace(",", " ").split():
                # From 7.x on a kernel is split into several packages.
                if word not in wanted and word.startswith(("linux-image-", "linux-binary-", "linux-modules-", "linux-base-")):
                    if any(letter.isdigit() for letter in word.split("-")[2][:1]):
                        wanted.append(word)
                        rest.append(word)
        files = apt.download([f"{package}={version}" for package in wanted], f"{self.work}/debs-{name}")
        unpacked = f"{self.work}/kernel-{name}"
        packages.unpack(files, unpacked)
        release = os.listdir(f"{unpacked}/usr/lib/modules")[0]
        self.releases[name] = release
        packed = f"{unpacked}/boot/vmlinuz-{release}"
        if not os.path.exists(packed):
            packed = f"{unpacked}/usr/lib/modules/{release}/vmlinuz"
        self._unpack_kernel(packed, f"{self.image}/kernels/{name}")

    def _unpack_kernel(self, packed, target):
        """Takes the payload out of a bzImage: QEMU starts it directly, which saves unpacking under emulation."""
        with open(packed, "rb") as file:
            data = file.read()
        # Fields of the boot protocol: number of set-up sectors, offset and length of the payload.
        sectors = data[0x1F1] or 4
        offset, length = struct.unpack_from("<II", data, 0x248)
        begin = (sectors + 1) * 512 + offset
        # The last four bytes are the length of the contents.
        payload = data[begin : begin + length - 4]
        with open(target, "wb") as file:
            done = subprocess.run(
                self._tool("usr/bin/zstd", "-dc"), input=payload, stdout=file, stderr=subprocess.PIPE, check=False
            )
        with open(target, "rb") as file:
            if file.read(4) != b"\x7fELF":
                raise PackageError(f"{packed}: no kernel in it: {done.stderr.decode(errors='replace')}")

    def _install_kernel(self, name):
        """Puts the modules into the root file system, and makes the initial one."""
        release = self.releases[name]
        source = f"{self.work}/kernel-{name}/usr/lib/modules/{release}"
        target = f"{self.root}/usr/lib/modules/{release}"
        for entry in MODULES:
            if os.path.isdir(f"{source}/kernel/{entry}"):
                shutil.copytree(f"{source}/kernel/{entry}", f"{target}/kernel/{entry}")
            for suffix in (".ko", ".ko.xz"):
                if os.path.exists(f"{source}/kernel/{entry}{suffix}"):
                    os.makedirs(os.path.dirname(f"{target}/kernel/{entry}"), exist_ok=True)
                    shutil.copy(f"{source}/kernel/{entry}{suffix}", f"{target}/kernel/{entry}{suffix}")
        packed = [f"{path}/{file}" for path, _, files in os.walk(target) for file in files if file.endswith(".ko.xz")]
        for begin in range(0, len(packed), 200):
            run(self._tool("usr/bin/xz", "-d", *packed[begin : begin + 200]))
        for file in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            shutil.copy(f"{source}/{file}", target)
        run(["chroot", self.root, "/sbin/depmod", release])
        self._make_initramfs(name, release)

    def _make_initramfs(self, name, release):
        modules = []
        for module in ("virtio_blk", "ext4"):
            shown = run(["chroot", self.root, "/sbin/modprobe", "-S", release, "-D", module])
            for line in shown.splitlines():
                path = line.split()[1]
                if line.startswith("insmod") and path not in modules:
                    modules.append(path)
        archive = Cpio()
        for folder in ("bin", "dev", "mnt", "modules", "proc", "sys"):
            archive.folder(folder)
        archive.file("init", f"{HERE}/guest/initramfs")
        archive.file("bin/busybox", f"{self.root}/usr/bin/busybox")
        archive.link("bin/sh", "busybox")
        for number, module in enumerate(modules):
            archive.file(f"modules/{number:02}-{os.path.basename(module)}", f"{self.root}/{module}")
        archive.write(f"{self.image}/kernels/{name}.initramfs")

    def _fix_root(self):
        """What the scripts of the packages would have done, as far as the tests need it."""
        root = self.root
        for name in "doc man locale info lintian icons i18n zoneinfo bash-completion fonts".split():
            shutil.rmtree(f"{root}/usr/share/{name}", ignore_errors=True)
        for name in ("passwd", "group"):
            shutil.copy(f"{root}/usr/share/base-passwd/{name}.master", f"{root}/etc/{name}")
        self._append("etc/group", "docker:x:999:\nmessagebus:x:990:\n")
        self._append("etc/passwd", "messagebus:x:990:990::/nonexistent:/usr/sbin/nologin\n")
        for name, text in {
            "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
            "hosts": "127.0.0.1 localhost guest\n",
            "hostname": "guest\n",
            "fstab": "",
            "resolv.conf": "",
            "machine-id": "0123456789abcdef0123456789abcdef\n",
        }.items():
            self._replace(f"etc/{name}", text)
        if not os.path.lexists(f"{root}/usr/bin/awk"):
            os.symlink("mawk", f"{root}/usr/bin/awk")
        # Clients look for the system bus below /var/run, and fall back to a socket of systemd's that loses requests.
        for name, target in {"var/run": "/run", "var/lock": "/run/lock"}.items():
            if not os.path.islink(f"{root}/{name}"):
                shutil.rmtree(f"{root}/{name}", ignore_errors=True)
                os.symlink(target, f"{root}/{name}")
        # It has modprobe ask for keys of disks that are not there, for each memory device.
        for base in ("etc", "usr/lib"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{root}/{base}/modprobe.d/nvdimm-security.conf")
        for name in ("guest-init", "guest-agent"):
            shutil.copy(f"{HERE}/guest/{name}", f"{root}/usr/sbin/{name}")
            os.chmod(f"{root}/usr/sbin/{name}", 0o755)
        units = f"{root}/etc/systemd/system"
        os.makedirs(f"{units}/multi-user.target.wants", exist_ok=True)
        shutil.copy(f"{HERE}/guest/guest-agent.service", units)
        self._link("../guest-agent.service", f"{units}/multi-user.target.wants/guest-agent.service")
        self._link("/usr/lib/systemd/system/multi-user.target", f"{units}/default.target")
        for name in MASKED:
            self._link("/dev/null", f"{units}/{name}.service")
        run(["chroot", root, "/sbin/ldconfig"])
        run(["chroot", root, "/usr/bin/systemd-sysusers"])

    def _append(self, path, text):
        with open(f"{self.root}/{path}", "a", encoding="utf-8") as file:
            file.write(text)

    def _replace(self, path, text):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.root}/{path}")
        self._append(path, text)

    @staticmethod
    def _link(target, path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.symlink(target, path)

    def _make_file_system(self):
        target = f"{self.image}/rootfs.ext4"
        with open(target, "wb") as file:
            file.truncate(3 << 30)
        options = "^has_journal,^resize_inode,^metadata_csum"
        environment = dict(os.environ, MKE2FS_CONFIG=f"{self.image}/tools/etc/mke2fs.conf")
        run(
            self._tool("usr/sbin/mke2fs", "-q", "-t", "ext4", "-O", options, "-b", "4096", "-d", self.root)
            + ["-E", "lazy_itable_init=1,root_owner=0:0", target],
            env=environment,
        )


def split_name(file):
    """Name and version of a package from the name of its file."""
    name, version = os.path.basename(file).split("_")[:2]
    return name, version.replace("%3a", ":")


class Cpio:
    """An archive in the format that the kernel reads as initial file system (`newc`)."""

    def __init__(self):
        self._parts = []
        self._count = 0

    def _entry(self, name, mode, data):
        self._count += 1
        encoded = name.encode() + b"\0"
        numbers = (self._count, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % number for number in numbers)
        for part in (header + encoded, data):
            self._parts.append(part + b"\0" * (-len(part) % 4))

    def folder(self, name):
        self._entry(name, 0o40755, b"")

    def link(self, name, target):
        self._entry(name, 0o120777, target.encode())

    def file(self, name, source):
        with open(source, "rb") as opened:
            self._entry(name, 0o100755, opened.read())

    def write(self, path):
        self._entry("TRAILER!!!", 0, b"")
        with open(path, "wb") as file:
            file.write(b"".join(self._parts))
