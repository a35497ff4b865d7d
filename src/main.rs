//! One executable under two names: a containerd shim if it is called like one, else the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    if elastic_mem::shim::is_called() {
        elastic_mem::shim::main()
    } else {
        elastic_mem::cli::main()
    }
}
