//! Users by name, as the root file system of a container knows them.

use std::io::Read;

use pathrs::Root;
use pathrs::flags::OpenFlags;

/// Larger files are no lists of users.
const LARGEST: u64 = 4 << 20;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The other groups that have the user among their members.
    pub(super) others: Vec<u32>,
}

/// Finds `USER[:GROUP]`, each a name or a number, in `/etc/passwd` and `/etc/group` below `root`. Numbers need not be
/// listed there; nobody given is root.
///
/// # Errors
/// A sentence that says which name is not known.
pub(super) fn find(root: &Root, text: &str) -> Result<User, String> {
    let (passwd, group) = (read(root, "/etc/passwd"), read(root, "/etc/group"));
    lookup(&passwd, &group, text)
}

fn read(root: &Root, path: &str) -> String {
    let mut text = String::new();
    // A root without these files has numbers only.
    if let Ok(file) = root.open_subpath(path, OpenFlags::O_RDONLY | OpenFlags::O_CLOEXEC) {
        let _ = file.take(LARGEST).read_to_string(&mut text);
    }
    text
}

fn lookup(passwd: &str, group: &str, text: &str) -> Result<User, String> {
    let (user, own_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() && own_group.is_none() {
        return Ok(User::default());
    }
    let number: Option<u32> = user.parse().ok();
    let known = lines(passwd).find_map(|fields| {
        let [name, _, uid, gid, ..] = fields[..] else {
            return None;
        };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (name == user || Some(uid) == number).then_some((name, uid, gid))
    });
    let (name, uid, gid) = match (known, number) {
        (Some(known), _) => known,
        (None, Some(uid)) => (user, uid, 0),
        (None, None) => return Err(format!("no user {user:?} in /etc/passwd of the container")),
    };
    let groups = || {
        lines(group).filter_map(|fields| match fields[..] {
            [name, _, gid, members, ..] => Some((name, gid.parse::<u32>().ok()?, members)),
            _ => None,
        })
    };
    let Some(own_group) = own_group else {
        let others = groups()
            .filter(|(_, other, members)| {
                *other != gid && members.split(',').any(|member| member == name)
            })
            .map(|(_, other, _)| other)
            .collect();
        return Ok(User { uid, gid, others });
    };
    let gid = groups()
        .find(|(name, ..)| *name == own_group)
        .map(|(_, gid, _)| gid)
        .or_else(|| own_group.parse().ok())
        .ok_or_else(|| format!("no group {own_group:?} in /etc/group of the container"))?;
    Ok(User {
        uid,
        gid,
        others: Vec::new(),
    })
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:100:::\n";
    const GROUP: &str = "users:x:100:app\nstaff:x:50:other,app\nwheel:x:10:root\n";

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let app = User {
            uid: 1000,
            gid: 100,
            others: vec![50],
        };
        assert_eq!(lookup(PASSWD, GROUP, "app"), Ok(app.clone()));
        assert_eq!(lookup(PASSWD, GROUP, "1000"), Ok(app));
        assert_eq!(lookup(PASSWD, GROUP, ""), Ok(User::default()));
        let with_group = lookup(PASSWD, GROUP, "app:wheel").unwrap();
        assert_eq!((with_group.gid, with_group.others.len()), (10, 0));
        let unknown = lookup("", "", "7:8").unwrap();
        assert_eq!((unknown.uid, unknown.gid), (7, 8));
        assert!(lookup(PASSWD, GROUP, "nobody").is_err());
        assert!(lookup(PASSWD, GROUP, "app:nogroup").is_err());
    }
}
