//! Images: from Docker, from containerd, or from a file, all by way of the two forms in which images are saved
//! (`docker image save`; image-spec, "Image Layout").

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pathrs::Root;
use pathrs::flags::OpenFlags;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{Result, TracerError};
use super::layer;

/// Larger documents are none.
const LARGEST_DOCUMENT: u64 = 16 << 20;
/// An index may name an index, but not without end.
const MOST_INDEXES: usize = 4;

/// Where an image is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A file or folder of this name if there is one, else Docker, else containerd.
    Any,
    /// A tar file as `docker image save` and `ctr image export` write them, or a folder with an image layout.
    File,
    /// The Docker daemon that `docker` talks to.
    Docker,
    /// The containerd that `ctr` talks to.
    Containerd,
}

/// How a process of an image begins (image-spec, "config").
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// The program and its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments that a command line replaces.
    pub cmd: Option<Vec<String>>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// `USER` or `USER:GROUP`, names or numbers.
    pub user: Option<String>,
}

/// An unpacked image.
#[derive(Debug)]
pub(super) struct Image {
    /// The root file system.
    pub(super) rootfs: PathBuf,
    pub(super) config: ImageConfig,
}

/// Gets an image and unpacks it below `folder`, which is empty.
///
/// # Errors
/// `Image` with what each place said, or what is wrong with the image; `Io`.
pub(super) fn fetch(name: &str, origin: Origin, namespace: &str, folder: &Path) -> Result<Image> {
    let archive = folder.join("image.tar");
    let path = Path::new(name);
    match origin {
        Origin::File => return open(path, folder),
        Origin::Any if path.exists() => return open(path, folder),
        Origin::Docker => save_from_docker(name, &archive).map_err(TracerError::Image)?,
        Origin::Containerd => {
            export_from_containerd(name, namespace, &archive).map_err(TracerError::Image)?;
        }
        Origin::Any => {
            if let Err(docker) = save_from_docker(name, &archive)
                && let Err(containerd) = export_from_containerd(name, namespace, &archive)
            {
                return Err(TracerError::Image(format!(
                    "no image {name:?}: there is no file of that name; {docker}; {containerd}"
                )));
            }
        }
    }
    let image = open(&archive, folder)?;
    // It is as large as the image.
    fs::remove_file(&archive).map_err(|err| TracerError::io("remove", &archive, err))?;
    Ok(image)
}

fn save_from_docker(name: &str, archive: &Path) -> std::result::Result<(), String> {
    let mut command = Command::new("docker");
    command.args(["image", "save", "--output"]).arg(archive);
    output_of(command.arg("--").arg(name)).map(drop)
}

/// containerd knows images by full names; `ctr` adds nothing to a short one.
fn export_from_containerd(
    name: &str,
    namespace: &str,
    archive: &Path,
) -> std::result::Result<(), String> {
    let mut first = None;
    for name in full_names(name) {
        let mut command = Command::new("ctr");
        // Without a daemon it would try for 10 s, and for each name.
        command.args(["--connect-timeout", "2s", "--namespace", namespace]);
        command.args(["images", "export"]);
        match output_of(command.arg(archive).arg(name)) {
            Ok(_) => return Ok(()),
            Err(reason) => first = first.or(Some(reason)),
        }
    }
    Err(first.unwrap_or_default())
}

/// The names under which an image may be known: as it is, and as Docker completes it.
fn full_names(name: &str) -> Vec<String> {
    let (repository, rest) = match name.find('@') {
        Some(at) => name.split_at(at),
        None => match name.rfind(':').filter(|at| !name[*at..].contains('/')) {
            Some(at) => name.split_at(at),
            None => (name, ":latest"),
        },
    };
    let has_registry = repository
        .split_once('/')
        .is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost");
    let full = match (has_registry, repository.contains('/')) {
        (true, _) => format!("{repository}{rest}"),
        (false, true) => format!("docker.io/{repository}{rest}"),
        (false, false) => format!("docker.io/library/{repository}{rest}"),
    };
    let mut names = vec![name.to_owned()];
    if full != name {
        names.push(full);
    }
    names
}

/// Runs a client; what it prints, or its last words.
pub(super) fn output_of(command: &mut Command) -> std::result::Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|err| match err.kind() {
            std::io::ErrorKind::NotFound => format!("there is no program {program}"),
            _ => format!("{program}: {}", crate::kernel::reason(&err)),
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    Err(format!(
        "{program}: {}",
        last.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned())
    ))
}

/// One image of a file of `docker image save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// A manifest has a configuration and layers, an index has manifests.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<ImageConfig>,
}

/// Opens a tar file or a layout, and unpacks the one image in it.
fn open(path: &Path, folder: &Path) -> Result<Image> {
    let layout = if path.is_dir() {
        path.to_path_buf()
    } else {
        let layout = folder.join("layout");
        make_folder(&layout)?;
        let file = File::open(path).map_err(|err| TracerError::io("open", path, err))?;
        let content = layer::decompressed(file);
        let unpacked = content.and_then(|content| tar::Archive::new(content).unpack(&layout));
        unpacked.map_err(|err| {
            TracerError::Image(format!(
                "{} is no image: not a tar file that can be unpacked: {err}",
                path.display()
            ))
        })?;
        layout
    };
    let wrong =
        |reason: String| TracerError::Image(format!("{} is no image: {reason}", path.display()));
    let files = Files(Root::open(&layout).map_err(|err| wrong(err.to_string()))?);
    let (config, layers) = if layout.join("manifest.json").exists() {
        files.saved().map_err(wrong)?
    } else {
        files.layout().map_err(wrong)?
    };
    let rootfs = folder.join("rootfs");
    make_folder(&rootfs)?;
    let root = Root::open(&rootfs).map_err(|err| wrong(err.to_string()))?;
    for name in &layers {
        files
            .open(name)
            .and_then(|file| {
                layer::apply(file, &rootfs, &root).map_err(|err| format!("layer {name}: {err}"))
            })
            .map_err(wrong)?;
    }
    if layout.starts_with(folder) {
        fs::remove_dir_all(&layout).map_err(|err| TracerError::io("remove", &layout, err))?;
    }
    Ok(Image { rootfs, config })
}

pub(super) fn make_folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .map_err(|err| TracerError::io("create", path, err))
}

/// The files of an image. Links in them lead nowhere else.
struct Files(Root);

impl Files {
    fn open(&self, name: &str) -> std::result::Result<File, String> {
        self.0
            .open_subpath(name, OpenFlags::O_RDONLY | OpenFlags::O_CLOEXEC)
            .map_err(|err| format!("{name}: {err}"))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> std::result::Result<T, String> {
        let mut bytes = Vec::new();
        self.open(name)?
            .take(LARGEST_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(|err| format!("{name}: {err}"))?;
        serde_json::from_slice(&bytes).map_err(|err| format!("{name}: {err}"))
    }

    fn config(&self, name: &str) -> std::result::Result<ImageConfig, String> {
        Ok(self.read::<Document>(name)?.config.unwrap_or_default())
    }

    fn saved(&self) -> std::result::Result<(ImageConfig, Vec<String>), String> {
        let images: Vec<Saved> = self.read("manifest.json")?;
        let [image] = &images[..] else {
            let names: Vec<String> = images
                .iter()
                .flat_map(|image| image.repo_tags.clone().unwrap_or_default())
                .collect();
            return Err(format!(
                "it holds {} images ({}): save one alone",
                images.len(),
                names.join(", ")
            ));
        };
        Ok((self.config(&image.config)?, image.layers.clone()))
    }

    fn layout(&self) -> std::result::Result<(ImageConfig, Vec<String>), String> {
        let mut manifest: Manifest = self.read("index.json")?;
        for _ in 0..MOST_INDEXES {
            if let Some(config) = &manifest.config {
                let layers: std::result::Result<_, _> = manifest.layers.iter().map(blob).collect();
                return Ok((self.config(&blob(config)?)?, layers?));
            }
            let chosen = choose(&manifest.manifests)?;
            manifest = self.read(&blob(chosen)?)?;
        }
        Err("its indexes name each other".to_owned())
    }
}

/// The manifest for this host.
fn choose(manifests: &[Descriptor]) -> std::result::Result<&Descriptor, String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let own = Platform {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
    };
    match manifests {
        [] => Err("it has no manifest".to_owned()),
        [one] => Ok(one),
        several => {
            let mut fitting = several
                .iter()
                .filter(|one| one.platform.as_ref() == Some(&own));
            match (fitting.next(), fitting.next()) {
                (Some(one), None) => Ok(one),
                (None, _) => Err(format!("it has nothing for linux on {architecture}")),
                (Some(_), Some(_)) => Err("it holds several images: save one alone".to_owned()),
            }
        }
    }
}

/// Where the content of a descriptor is.
fn blob(descriptor: &Descriptor) -> std::result::Result<String, String> {
    match descriptor.digest.split_once(':') {
        Some((algorithm, hash)) if !algorithm.is_empty() && !hash.is_empty() => {
            Ok(format!("blobs/{algorithm}/{hash}"))
        }
        _ => Err(format!("{:?} is no digest", descriptor.digest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        for (name, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("futils/resize", "docker.io/futils/resize:latest"),
            ("quay.io/a/b:c", "quay.io/a/b:c"),
            ("localhost/scale", "localhost/scale:latest"),
            ("reg:5000/a", "reg:5000/a:latest"),
            ("a@sha256:00", "docker.io/library/a@sha256:00"),
        ] {
            assert_eq!(full_names(name).last().unwrap(), full, "{name}");
            assert_eq!(full_names(name)[0], name);
        }
    }

    #[test]
    fn the_manifest_of_this_host_is_taken() {
        let descriptor = |digest: &str, architecture: &str| Descriptor {
            digest: digest.to_owned(),
            platform: Some(Platform {
                architecture: architecture.to_owned(),
                os: "linux".to_owned(),
            }),
        };
        let (one, other) = (descriptor("a:1", "riscv-none"), descriptor("a:2", "mips"));
        assert_eq!(choose(std::slice::from_ref(&one)).unwrap().digest, "a:1");
        assert!(choose(&[one.clone(), other]).is_err());
        assert!(choose(&[]).is_err());
        assert!(blob(&descriptor("abc", "")).is_err());
        assert_eq!(blob(&one).unwrap(), "blobs/a/1");
    }
}
