//! Layers of images: tar files, plain or compressed, laid one over the other (image-spec, "Image Layer Filesystem
//! Changeset").

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use pathrs::Root;
use pathrs::flags::OpenFlags;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use tar::{Archive, EntryType};

/// Begins the name of a file that removes one of a lower layer.
const WHITEOUT: &[u8] = b".wh.";
/// Removes everything that lower layers have in the folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The first bytes of a frame without content; only the lower half of the first byte varies.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The content of a file that is plain or compressed with gzip or zstd.
///
/// # Errors
/// When it cannot be read.
pub(super) fn decompressed(file: File) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(1 << 16, file);
    let start = file.fill_buf()?;
    Ok(if start.starts_with(&GZIP) {
        Box::new(MultiGzDecoder::new(file))
    } else if start.starts_with(&ZSTD) || start.get(1..4) == Some(&ZSTD_SKIPPABLE) {
        Box::new(ZstdFrames {
            source: file,
            decoder: FrameDecoder::new(),
            within: false,
        })
    } else {
        Box::new(file)
    })
}

/// All frames of a zstd file, one after the other (RFC 8878): tools that address parts of a layer make many.
struct ZstdFrames {
    source: BufReader<File>,
    decoder: FrameDecoder,
    /// Whether the decoder is within a frame.
    within: bool,
}

impl Read for ZstdFrames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            while self.within {
                let count = self.decoder.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                self.within = !self.decoder.is_finished();
                if self.within {
                    self.decoder
                        .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                        .map_err(io::Error::other)?;
                }
            }
            if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => self.within = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                }
                Err(err) => return Err(io::Error::other(err)),
            }
        }
    }
}

/// Lays a layer over what is in `folder`; `root` is the same folder, for paths that lead through its links.
///
/// # Errors
/// When the layer is damaged, names a path outside, or cannot be written.
pub(super) fn apply(file: File, folder: &Path, root: &Root) -> io::Result<()> {
    let mut archive = Archive::new(decompressed(file)?);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_unpack_xattrs(true);
    // What this layer has brought is not removed by its own marks.
    let mut brought: HashSet<PathBuf> = HashSet::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = inside(&entry.path()?)?;
        let Some(name) = path.file_name().map(OsStr::as_bytes) else {
            // The root itself.
            continue;
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            empty(root, parent, &brought)?;
            continue;
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let hidden = parent.join(OsStr::from_bytes(hidden));
            if !brought.contains(&hidden) {
                remove(root, &hidden)?;
            }
            continue;
        }
        match entry.header().entry_type() {
            // Containers get a /dev of their own; a fifo in an image has no other end.
            EntryType::Char | EntryType::Block | EntryType::Fifo => continue,
            EntryType::Directory if is_folder(root, &path) => {}
            _ => remove(root, &path)?,
        }
        if !entry.unpack_in(folder)? {
            return Err(io::Error::other(format!(
                "{} leads out of the layer",
                path.display()
            )));
        }
        brought.extend(path.ancestors().map(Path::to_path_buf));
    }
    Ok(())
}

/// A path of a layer without what means nothing in it.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                return Err(io::Error::other(format!(
                    "{} leads out of the layer",
                    path.display()
                )));
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

fn is_folder(root: &Root, path: &Path) -> bool {
    root.resolve_nofollow(path)
        .ok()
        .and_then(|found| rustix::fs::fstat(&found).ok())
        .is_some_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
        })
}

/// Removes what is at a path, if anything is.
fn remove(root: &Root, path: &Path) -> io::Result<()> {
    if root.resolve_nofollow(path).is_err() {
        return Ok(());
    }
    root.remove_all(path).map_err(io::Error::other)
}

/// Removes what lower layers have in a folder.
fn empty(root: &Root, folder: &Path, brought: &HashSet<PathBuf>) -> io::Result<()> {
    // An empty path would not be resolved.
    let at = Path::new("/").join(folder);
    let Ok(found) = root.resolve(&at) else {
        return Ok(());
    };
    let found = found
        .reopen(OpenFlags::O_RDONLY | OpenFlags::O_DIRECTORY)
        .map_err(io::Error::other)?;
    for entry in rustix::fs::Dir::read_from(&found)? {
        let name = entry?.file_name().to_bytes().to_vec();
        let path = folder.join(OsStr::from_bytes(&name));
        if name != b"." && name != b".." && !brought.contains(&path) {
            remove(root, &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::CompressionLevel;
    use std::fs;
    use std::io::{Seek, Write};

    /// A layer with these files; a name that ends in a slash is a folder.
    fn layer(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_uid(nix::unistd::geteuid().as_raw().into());
            header.set_gid(nix::unistd::getegid().as_raw().into());
            header.set_size(text.len() as u64);
            let is_folder = name.ends_with('/');
            header.set_mode(if is_folder { 0o750 } else { 0o640 });
            header.set_entry_type(if is_folder {
                EntryType::Directory
            } else {
                EntryType::Regular
            });
            // Names that the crate refuses to write must be refused when they are read.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn apply_all(layers: &[&[u8]]) -> (tempfile::TempDir, io::Result<()>) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let result = layers
            .iter()
            .try_for_each(|bytes| apply(file(bytes), folder.path(), &root));
        (folder, result)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut rest = vec![folder.to_path_buf()];
        while let Some(next) = rest.pop() {
            for entry in fs::read_dir(next).unwrap().flatten() {
                if entry.path().is_dir() && !entry.path().is_symlink() {
                    rest.push(entry.path());
                }
                let inside = entry.path().strip_prefix(folder).unwrap().to_path_buf();
                found.push(inside.to_string_lossy().into_owned());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_later_layer_changes_and_removes_files() {
        let (folder, result) = apply_all(&[
            &layer(&[
                ("a/", ""),
                ("a/one", "1"),
                ("a/two", "2"),
                ("b/", ""),
                ("b/old", ""),
                ("c", "file"),
            ]),
            &layer(&[
                ("a/.wh.one", ""),
                ("b/new", ""),
                ("b/.wh..wh..opq", ""),
                ("c/", ""),
                ("c/inside", ""),
            ]),
        ]);
        result.unwrap();
        assert_eq!(
            names(folder.path()),
            ["a", "a/two", "b", "b/new", "c", "c/inside"]
        );
    }

    #[test]
    fn compressed_layers_are_read() {
        let plain = layer(&[("a", "1")]);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&plain).unwrap();
        let (first, second) = plain.split_at(100);
        let frame =
            |part: &[u8]| ruzstd::encoding::compress_to_vec(part, CompressionLevel::Uncompressed);
        let skipped: &[u8] = &[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let zstd = [&frame(first)[..], skipped, &frame(second), skipped].concat();
        for bytes in [gzip.finish().unwrap(), zstd] {
            let (folder, result) = apply_all(&[&bytes]);
            result.unwrap();
            assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"1");
        }
    }

    #[test]
    fn a_layer_reaches_nothing_outside() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        for bad in ["../kept", "a/../../kept"] {
            let (_folder, result) = apply_all(&[&layer(&[(bad, "")])]);
            assert!(result.is_err(), "{bad}");
        }
        let mut tar = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        link.set_mode(0o777);
        link.set_uid(nix::unistd::geteuid().as_raw().into());
        link.set_gid(nix::unistd::getegid().as_raw().into());
        tar.append_link(&mut link, "link", outside.path()).unwrap();
        let link = tar.into_inner().unwrap();
        for name in ["link/.wh.kept", "link/.wh..wh..opq", "link/new"] {
            let (_folder, _) = apply_all(&[&link, &layer(&[(name, "")])]);
            assert_eq!(names(outside.path()), ["kept"], "{name}");
        }
    }

    #[test]
    fn a_damaged_layer_is_an_error() {
        let plain = layer(&[("a", &"x".repeat(2000))]);
        assert!(apply_all(&[&plain[..900]]).1.is_err());
        assert!(apply_all(&[&[0x28, 0xb5, 0x2f, 0xfd, 0xff][..]]).1.is_err());
    }
}
