//! Memory policies of the calling thread (set_mempolicy(2)), pages of other processes and the nodes that they lie on
//! (move_pages(2)), and the interleave weights of the host.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::{KernelError, Result, write_text};
use crate::model::nodes::{NodeSet, Weights};
use crate::model::placement::{MemoryPolicy, PolicyFlag, PolicyMode};

/// `MPOL_WEIGHTED_INTERLEAVE` (include/uapi/linux/mempolicy.h).
const WEIGHTED_INTERLEAVE: libc::c_int = 6;
/// `MPOL_PREFERRED_MANY`.
const PREFERRED_MANY: libc::c_int = 5;
/// `MPOL_MF_MOVE_ALL`.
const MOVE_ALL: libc::c_int = 4;
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

/// Nodes as a mask.
fn mask(nodes: &NodeSet) -> [libc::c_ulong; WORDS] {
    let mut mask = [0; WORDS];
    for node in nodes.iter() {
        let word = usize::try_from(node / 64).ok();
        if let Some(word) = word.and_then(|word| mask.get_mut(word)) {
            *word |= 1 << (node % 64);
        }
    }
    mask
}

/// Whether this kernel takes weighted interleaving over static nodes from the calling thread, which has its own policy
/// again afterwards.
///
/// # Errors
/// The kernel's reason: `EINVAL` where it does not know that policy, `ENOSYS` without NUMA, `EPERM` behind a filter.
pub fn accepts_weighted_interleave(nodes: &NodeSet) -> io::Result<()> {
    let before = policy()?;
    set(&Policy {
        mode: WEIGHTED_INTERLEAVE | libc::MPOL_F_STATIC_NODES,
        mask: mask(nodes),
    })?;
    set(&before)
}

/// Gives the calling thread a memory policy, which whatever it starts inherits, also over execve(2).
///
/// # Errors
/// The kernel's reason: `EINVAL` for nodes that the thread may not use, `ENOSYS` without NUMA.
pub fn apply(policy: &MemoryPolicy) -> io::Result<()> {
    let mode = match policy.mode {
        PolicyMode::Local => libc::MPOL_LOCAL,
        PolicyMode::Preferred => libc::MPOL_PREFERRED,
        PolicyMode::PreferredMany => PREFERRED_MANY,
        PolicyMode::Interleave => libc::MPOL_INTERLEAVE,
        PolicyMode::WeightedInterleave => WEIGHTED_INTERLEAVE,
    };
    let flags = policy.flags.iter().map(|flag| match flag {
        PolicyFlag::StaticNodes => libc::MPOL_F_STATIC_NODES,
    });
    set(&Policy {
        mode: flags.fold(mode, |mode, flag| mode | flag),
        mask: mask(&policy.nodes),
    })
}

/// The policy of a process as the kernel writes it, such as `weighted interleave=static:0-1` (`/proc/PID/numa_maps`).
///
/// # Errors
/// `Io` when it is gone, or without NUMA.
pub fn policy_of(pid: i32) -> Result<String> {
    let path = Path::new("/proc").join(pid.to_string()).join("numa_maps");
    let fail = |err| KernelError::io("read", &path, err);
    let file = std::fs::File::open(&path).map_err(fail)?;
    let mut line = String::new();
    BufReader::new(file).read_line(&mut line).map_err(fail)?;
    Ok(policy_in(&line).to_owned())
}

/// Behind the address, up to the first word that says something of the area; a policy can have two words.
fn policy_in(line: &str) -> &str {
    let rest = line.split_once(' ').map_or("", |(_, rest)| rest).trim_end();
    let of_area = |word: &str| {
        let of_node = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
        let keys = [
            "file=",
            "heap",
            "stack",
            "huge",
            "anon=",
            "mapped=",
            "dirty=",
            "mapmax=",
            "swapcache=",
        ];
        keys.iter().any(|key| word.starts_with(key)) || word.strip_prefix('N').is_some_and(of_node)
    };
    let mut end = 0;
    for word in rest.split(' ') {
        // The first word always is of the policy.
        if end > 0 && of_area(word) {
            break;
        }
        end += word.len() + usize::from(end > 0);
    }
    rest.get(..end).unwrap_or(rest)
}

/// What became of a page of another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It lies on this node.
    On(u32),
    /// It is not there, or the kernel did not move it: an error number.
    Not(i32),
}

/// The nodes on which pages of a process lie, by the addresses of the pages.
///
/// # Errors
/// `ESRCH` when the process is gone, `EPERM`.
pub fn nodes_of(pid: i32, addresses: &[u64]) -> io::Result<Vec<Placed>> {
    pages(pid, addresses, None)
}

/// Moves pages of a process, those that others share with it too, each to the node beside it. Those that the kernel could
/// not move stay where they are.
///
/// # Errors
/// `ESRCH` when the process is gone, `EPERM` without CAP_SYS_NICE, `EACCES` where it may not use one of the nodes.
pub fn move_pages(pid: i32, addresses: &[u64], nodes: &[u32]) -> io::Result<Vec<Placed>> {
    let nodes: Vec<libc::c_int> = nodes
        .iter()
        .map(|node| libc::c_int::try_from(*node).unwrap_or(libc::c_int::MAX))
        .collect();
    if nodes.len() != addresses.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    pages(pid, addresses, Some(&nodes))
}

fn pages(pid: i32, addresses: &[u64], nodes: Option<&[libc::c_int]>) -> io::Result<Vec<Placed>> {
    let mut found: Vec<libc::c_int> = vec![-libc::ENOENT; addresses.len()];
    // Addresses of the other process: nothing is read through them.
    let addresses: Vec<usize> = addresses
        .iter()
        .map(|address| usize::try_from(*address).unwrap_or_default())
        .collect();
    // SAFETY: the lists have as many entries as is said, as `move_pages` has checked of the nodes, and live across the
    // call; the kernel writes to the last one only.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            pid,
            addresses.len(),
            addresses.as_ptr(),
            nodes.map_or(std::ptr::null(), <[libc::c_int]>::as_ptr),
            found.as_mut_ptr(),
            MOVE_ALL,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    // A positive result is the number of pages that were not moved; of each of them the list says so.
    let placed = |status: i32| u32::try_from(status).map_or(Placed::Not(-status), Placed::On);
    Ok(found.into_iter().map(placed).collect())
}

/// The interleave weights of the host, if the kernel has some.
pub fn weights() -> Option<Weights> {
    super::probe::weights(Path::new("/"))
}

/// Sets the interleave weights of the host; with `auto` the kernel makes them itself.
///
/// # Errors
/// `Io` with the file that refused.
pub fn set_weights(weights: &Weights) -> Result<()> {
    let folder = Path::new("/sys/kernel/mm/mempolicy/weighted_interleave");
    if weights.auto == Some(true) {
        match write_text(&folder.join("auto"), "true") {
            // It knows no bandwidths, so what it had were these: "auto" is only what it begins with.
            Err(KernelError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
            done => return done,
        }
    }
    for (node, weight) in &weights.nodes {
        write_text(&folder.join(format!("node{node}")), &weight.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_can_have_two_words() {
        for (line, policy) in [
            (
                "7f00 default anon=1 dirty=1 N0=1 kernelpagesize_kB=4\n",
                "default",
            ),
            (
                "7f00 weighted interleave=static:0-1 file=/bin/x mapped=3 N0=3\n",
                "weighted interleave=static:0-1",
            ),
            ("7f00 prefer=static:1 heap anon=2 N1=2\n", "prefer=static:1"),
            (
                "7f00 prefer (many)=static:1-2 stack anon=2\n",
                "prefer (many)=static:1-2",
            ),
            ("7f00 local\n", "local"),
            ("", ""),
        ] {
            assert_eq!(policy_in(line), policy, "{line}");
        }
    }

    #[test]
    fn pages_of_this_process_are_found_and_stay_where_they_are_told_to() {
        let size = super::super::pages::size();
        let memory = vec![1_u8; usize::try_from(4 * size).unwrap()];
        let start = (memory.as_ptr().addr() as u64).next_multiple_of(size);
        let addresses: Vec<u64> = (0..3).map(|page| start + page * size).collect();
        let pid = std::process::id().cast_signed();
        let found = nodes_of(pid, &addresses).unwrap();
        let Placed::On(node) = found[0] else {
            panic!("{found:?}")
        };
        assert_eq!(found, [Placed::On(node); 3]);
        match move_pages(pid, &addresses, &[node; 3]) {
            Ok(moved) => assert_eq!(moved, found),
            Err(err) => assert_eq!(err.raw_os_error(), Some(libc::EPERM), "{err}"),
        }
        assert!(move_pages(pid, &addresses, &[node; 2]).is_err());
        // Nothing is at the beginning of the address space.
        assert!(matches!(nodes_of(pid, &[0]).unwrap()[0], Placed::Not(_)));
    }

    #[test]
    fn a_policy_is_applied_and_read_back() {
        let thread = std::thread::spawn(|| {
            let policy = MemoryPolicy {
                mode: PolicyMode::Local,
                nodes: NodeSet::default(),
                flags: Vec::new(),
            };
            apply(&policy).unwrap();
            assert_eq!(super::policy().unwrap().mode, libc::MPOL_LOCAL);
            // A node that no host has.
            let policy = MemoryPolicy {
                mode: PolicyMode::Preferred,
                nodes: "1023".parse().unwrap(),
                flags: vec![PolicyFlag::StaticNodes],
            };
            assert!(apply(&policy).is_err());
        });
        thread.join().unwrap();
    }
}
