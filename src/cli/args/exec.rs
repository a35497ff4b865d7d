//! Options of `exec`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::runtime::{ExecOptions, RuntimeError};

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Exec {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) id: String,
    /// Program and its arguments
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        required_unless_present = "process"
    )]
    args: Vec<String>,
    /// Unix socket that gets the master end of the process's terminal
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "PATH")]
    cwd: Option<String>,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and group
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Supplementary group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// File with the process as JSON
    #[arg(short, long, value_name = "PATH")]
    process: Option<PathBuf>,
    /// Return once the process runs
    #[arg(short, long)]
    detach: bool,
    /// File that gets the process id
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Never gain privileges by execve
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Pass N further descriptors after standard error
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Run in a control group below the container's own
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    cgroup: Vec<String>,
    /// Also in a paused container
    #[arg(long)]
    ignore_paused: bool,
}

impl Exec {
    pub(in crate::cli) fn options(&self) -> Result<ExecOptions, RuntimeError> {
        let absolute = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        Ok(ExecOptions {
            process: absolute(&self.process),
            args: self.args.clone(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            additional_gids: self.additional_gids.clone(),
            tty: self.tty,
            capabilities: self.cap.clone(),
            no_new_privs: self.no_new_privs,
            apparmor: self.apparmor.clone(),
            process_label: self.process_label.clone(),
            ignore_paused: self.ignore_paused,
            cgroup: self.cgroup.clone(),
            pid_file: absolute(&self.pid_file),
            console_socket: absolute(&self.console_socket),
            preserve_fds: self.preserve_fds,
            detach: self.detach,
        })
    }
}
