//! Memory policies of the calling thread (set_mempolicy(2)).

use std::io;

use crate::model::nodes::NodeSet;

/// `MPOL_WEIGHTED_INTERLEAVE` (include/uapi/linux/mempolicy.h).
const WEIGHTED_INTERLEAVE: libc::c_int = 6;
/// Words of a mask that holds every node that a kernel can have.
const WORDS: usize = 16;
/// Its bits, and one: the kernel takes one off.
const BITS: libc::c_ulong = 16 * 64 + 1;

/// The policy of the calling thread: mode with flags, and the mask of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    mode: libc::c_int,
    mask: [libc::c_ulong; WORDS],
}

/// The policy of the calling thread.
///
/// # Errors
/// `ENOSYS` without NUMA, `EPERM` where a filter forbids it.
pub fn policy() -> io::Result<Policy> {
    let mut policy = Policy {
        mode: 0,
        mask: [0; WORDS],
    };
    // SAFETY: both pointers lead to memory of `policy`, the mask has at least the bits that are named.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut policy.mode,
            policy.mask.as_mut_ptr(),
            BITS,
            std::ptr::null::<libc::c_void>(),
            0,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(policy)
}

fn set(policy: &Policy) -> io::Result<()> {
    let has_nodes = policy.mask.iter().any(|word| *word != 0);
    let (mask, bits) = if has_nodes {
        (policy.mask.as_ptr(), BITS)
    } else {
        (std::ptr::null(), 0)
    };
    // SAFETY: the mask is null, or leads to memory of `policy` that has the bits that are named.
    let rc = unsafe { libc::syscall(libc::SYS_set_mempolicy, policy.mode, mask, bits) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether this kernel takes weighted interleaving over static nodes from the calling thread, which has its own policy
/// again afterwards.
///
/// # Errors
/// The kernel's reason: `EINVAL` where it does not know that policy, `ENOSYS` without NUMA, `EPERM` behind a filter.
pub fn accepts_weighted_interleave(nodes: &NodeSet) -> io::Result<()> {
    let before = policy()?;
    let mut mask = [0; WORDS];
    for node in nodes.iter() {
        let word = usize::try_from(node / 64).ok();
        if let Some(word) = word.and_then(|word| mask.get_mut(word)) {
            *word |= 1 << (node % 64);
        }
    }
    set(&Policy {
        mode: WEIGHTED_INTERLEAVE | libc::MPOL_F_STATIC_NODES,
        mask,
    })?;
    set(&before)
}
