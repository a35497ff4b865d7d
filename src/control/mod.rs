//! What other programs of this host can see of a container, and what they may tell whoever looks after its memory.
//!
//! Each container that is looked after has a folder `/run/elastic-mem/NAMESPACE/ID` with a record (`record`) and a socket
//! (`server`, `client`). The shim and the monitor keep them. A verb that is about to change a container asks by the
//! socket that its limit is raised first, and raises it by the record if nobody answers (`raise`). `docs/control.md` has
//! the form of both.

mod client;
mod ended;
mod error;
mod find;
mod message;
mod raise;
mod record;
mod seen;
mod server;
mod standing;
mod tuned;

pub use client::Client;
pub use ended::{Counted, Ended, Sums, count, ended};
pub use error::{ControlError, Result};
pub use find::{Found, all, all_names, by_name, by_root, ids, namespace_of};
pub use message::Request;
pub use raise::{Hold, forget, give_back, hold, restore, sweep};
pub(crate) use record::create_folder;
pub use record::{Folder, Record};
pub use seen::{LastDecision, Seen};
pub use server::{Key, Server, Subject, Tuner};
pub use standing::{Recorded, Standing, standing};
pub use tuned::{Known, Tuned, publish, tell, wants_socket};

/// Where the folders of all containers lie.
pub const STATE: &str = "/run/elastic-mem";
/// The folder of runtime state below that of a namespace; no container can have its name.
pub(crate) const RUNTIME_STATE: &str = ".oci";
/// The socket in the folder of a container.
const SOCKET: &str = "control.sock";
