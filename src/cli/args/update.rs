//! Options of `update`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::model::MemoryLimit;
use crate::runtime::UpdateOptions;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Update {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) id: String,
    /// File with linux.resources as JSON, - for standard input; the other options do not apply then
    #[arg(short, long, value_name = "PATH")]
    pub(in crate::cli) resources: Option<PathBuf>,
    /// Memory limit, -1 for none
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<MemoryLimit>,
    /// Soft limit of memory
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_reservation: Option<MemoryLimit>,
    /// Limit of memory and swap together, -1 for none
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<MemoryLimit>,
    /// Accepted for callers of runc; kernel memory has no limit of its own any more
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    kernel_memory: Option<MemoryLimit>,
    /// Accepted for callers of runc; kernel memory has no limit of its own any more
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    kernel_memory_tcp: Option<MemoryLimit>,
    /// CPU shares
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    /// CPU time in a period, microseconds, -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU period, microseconds
    #[arg(long, value_name = "N")]
    cpu_period: Option<u64>,
    /// Unused quota that may be spent later, microseconds
    #[arg(long, value_name = "N")]
    cpu_burst: Option<u64>,
    /// Realtime CPU time in a period, microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// Realtime period, microseconds
    #[arg(long, value_name = "N")]
    cpu_rt_period: Option<u64>,
    /// 1: run only when nothing else does
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// Processors, such as 0-2,5
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Most processes and threads, -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Weight among block device users, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
}

impl Update {
    pub(in crate::cli) fn options(&self) -> UpdateOptions {
        UpdateOptions {
            memory: self.memory,
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            cpu_share: self.cpu_share,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpu_burst: self.cpu_burst,
            cpu_rt_runtime: self.cpu_rt_runtime,
            cpu_rt_period: self.cpu_rt_period,
            cpu_idle: self.cpu_idle,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            blkio_weight: self.blkio_weight,
        }
    }
}
