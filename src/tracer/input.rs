//! What a function is given: files, and the numbers that describe them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{Result, TracerError};
use crate::policy::identity::INPUT_BYTES_FEATURE as INPUT_BYTES;

/// How many pixels its pictures have.
const PIXELS: &str = "pixels";

/// A file or folder of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the container, absolute.
    pub target: PathBuf,
    /// Whether it cannot be changed there.
    pub read_only: bool,
}

impl Bind {
    /// Reads `SOURCE[:TARGET]`; without a target it is at the same path in the container. What ends in `:ro` cannot be
    /// changed, and neither can what is `read_only` anyway.
    ///
    /// # Errors
    /// A sentence that says what would be right.
    pub fn parse(text: &str, read_only: bool) -> std::result::Result<Self, String> {
        let (text, read_only) = match text.strip_suffix(":ro") {
            Some(rest) => (rest, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), read_only),
        };
        let (source, target) = match text.rsplit_once(':') {
            Some((source, target)) => (source, Some(target)),
            None => (text, None),
        };
        let source = std::path::absolute(source)
            .map_err(|_| format!("{text:?} names no file: want FILE or FILE:PATH"))?;
        let target = match target {
            None => source.clone(),
            Some(target) if target.starts_with('/') => PathBuf::from(target),
            Some(target) => {
                return Err(format!(
                    "{target:?} is no absolute path in the container: want FILE or FILE:PATH"
                ));
            }
        };
        Ok(Self {
            source,
            target,
            read_only,
        })
    }
}

/// The numbers that describe these inputs: `input-bytes`, and `pixels` if all of them are pictures.
///
/// # Errors
/// `Io` for an input that is not there.
pub(super) fn features(inputs: &[Bind]) -> Result<BTreeMap<String, f64>> {
    let mut found = BTreeMap::new();
    if inputs.is_empty() {
        return Ok(found);
    }
    let mut bytes = 0_u64;
    let mut pixels = Some(0_u64);
    for input in inputs {
        bytes = bytes.saturating_add(size(&input.source)?);
        pixels = pixels
            .zip(pixels_of(&input.source))
            .and_then(|(sum, more)| sum.checked_add(more));
    }
    found.insert(INPUT_BYTES.to_owned(), number(bytes));
    if let Some(pixels) = pixels {
        found.insert(PIXELS.to_owned(), number(pixels));
    }
    Ok(found)
}

/// The size of a file, or of all files in a folder.
fn size(path: &Path) -> Result<u64> {
    let fail = |err| TracerError::io("read input", path, err);
    let meta = std::fs::metadata(path).map_err(fail)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    let mut sum = 0_u64;
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let kind = entry.file_type().map_err(fail)?;
        // A link may lead anywhere, also back.
        if kind.is_dir() {
            sum = sum.saturating_add(size(&entry.path())?);
        } else if kind.is_file() {
            sum = sum.saturating_add(entry.metadata().map_err(fail)?.len());
        }
    }
    Ok(sum)
}

/// From the header of a picture; none for anything else.
fn pixels_of(path: &Path) -> Option<u64> {
    let size = imagesize::size(path).ok()?;
    u64::try_from(size.width.checked_mul(size.height)?).ok()
}

/// Exact up to 2^53, and close beyond.
#[allow(
    clippy::cast_precision_loss,
    reason = "sizes of inputs are compared, not added up"
)]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest GIF that says its size: 3 x 5.
    const GIF: &[u8] = b"GIF89a\x03\x00\x05\x00\x00\x00\x00;";

    #[test]
    fn a_target_is_an_absolute_path() {
        let bind = Bind::parse("/a/b:c:/in/x:ro", false).unwrap();
        assert_eq!(bind.source, Path::new("/a/b:c"));
        assert_eq!(bind.target, Path::new("/in/x"));
        assert!(bind.read_only);
        let bind = Bind::parse("/a", false).unwrap();
        assert_eq!((&bind.source, bind.read_only), (&bind.target, false));
        assert!(Bind::parse("a", true).unwrap().source.is_absolute());
        assert!(Bind::parse("/a:b", true).is_err());
        assert!(Bind::parse("", true).is_err());
    }

    #[test]
    fn inputs_are_described_by_their_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("picture.gif"), GIF).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        std::fs::write(path("folder/text"), "12345").unwrap();
        let bind = |name: &str| Bind::parse(path(name).to_str().unwrap(), true).unwrap();
        let picture = features(&[bind("picture.gif"), bind("picture.gif")]).unwrap();
        assert_eq!(picture.get(PIXELS), Some(&30.0));
        assert_eq!(picture.get(INPUT_BYTES), Some(&(2.0 * GIF.len() as f64)));
        let mixed = features(&[bind("picture.gif"), bind("folder")]).unwrap();
        assert_eq!(mixed.get(PIXELS), None);
        assert_eq!(mixed.get(INPUT_BYTES), Some(&(GIF.len() as f64 + 5.0)));
        assert!(features(&[]).unwrap().is_empty());
        assert!(features(&[bind("nothing")]).is_err());
    }
}
