//! Session keyrings: one per container, so that keys of the host or of other containers are out of reach.

use std::ffi::CString;
use std::io;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
const KEYCTL_SETPERM: libc::c_long = 5;
const KEYCTL_DESCRIBE: libc::c_long = 6;
/// The right to search the keyring, for the user who owns it (keyctl_setperm(3)).
const KEY_USR_SEARCH: u32 = 0x0008_0000;

/// Joins a new session keyring called `name`; every later child of the caller inherits it.
///
/// # Errors
/// The kernel's reason: `ENOSYS` without key support, `EDQUOT` at the user's key quota.
pub fn join_session(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: `name` is a NUL-terminated string that lives across the call.
    let key =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if key < 0 {
        return Err(io::Error::last_os_error());
    }
    // Processes in a user namespace possess the keyring no more; give them the right to search it.
    let Some(permissions) = permissions(key) else {
        return Ok(());
    };
    let permissions = libc::c_long::from(permissions | KEY_USR_SEARCH);
    // SAFETY: integers only.
    let rc = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, permissions) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn permissions(key: libc::c_long) -> Option<u32> {
    let mut buffer = [0_u8; 256];
    // SAFETY: the pointer and the length describe `buffer`, which lives across the call.
    let len = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_DESCRIBE,
            key,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    let text = buffer.get(..usize::try_from(len).ok()?.min(buffer.len()))?;
    // "keyring;0;0;3f030000;_ses.name"
    let field = std::str::from_utf8(text).ok()?.split(';').nth(3)?;
    u32::from_str_radix(field, 16).ok()
}
