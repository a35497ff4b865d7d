//! Names of functions and runs as names of folders and files.
//!
//! Letters, digits, `-`, `_` and a `.` that is not the first stand for themselves, every other byte is `%` and two
//! hexadecimal digits. What would be longer than a file name can be is cut and ends in `~` and a hash.

use std::fmt::Write;
use std::hash::Hasher;

/// Longest name before it is cut: a file name has at most 255 bytes, and endings come behind it.
const LONGEST: usize = 200;
/// How much of a long name is kept.
const KEPT: usize = 150;

/// The name of the folder or file of a function or run.
pub(super) fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || b"-_".contains(&byte)
            || (byte == b'.' && !out.is_empty());
        if plain {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    if out.len() <= LONGEST {
        return out;
    }
    out.truncate(KEPT);
    out + "~" + &hash(name.as_bytes())
}

/// The name that was encoded; `None` if it was cut, or never was one.
pub(super) fn decode(encoded: &str) -> Option<String> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let text = std::str::from_utf8(&digits).ok()?;
            out.push(u8::from_str_radix(text, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    // One name, one encoding: another spelling of it is no folder of ours.
    String::from_utf8(out)
        .ok()
        .filter(|name| encode(name) == encoded)
}

/// The same for the same bytes, on every host and in every version.
pub(super) fn hash(bytes: &[u8]) -> String {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(bytes);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_to_a_file_name_and_back() {
        for (name, encoded) in [
            ("default/thumb", "default%2Fthumb"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("a.b-c_d 1%", "a.b-c_d%201%25"),
            ("é~", "%C3%A9%7E"),
        ] {
            assert_eq!(encode(name), encoded);
            assert_eq!(decode(encoded).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_long_name_is_cut_and_stays_apart_from_its_neighbours() {
        let long = "é".repeat(128);
        let other = format!("{}a", "é".repeat(127));
        assert!(encode(&long).len() <= LONGEST);
        assert_ne!(encode(&long), encode(&other));
        assert_eq!(decode(&encode(&long)), None);
    }

    #[test]
    fn other_spellings_are_no_names() {
        for wrong in ["a%2", "a%zz", "a%61", "%FF", ".a", "a~b", "%c3%a9"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash(b"foobar"), "85944171f73967e8");
    }
}
