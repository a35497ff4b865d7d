//! One executable. The name it is called by does not change what it does, so that it can stand in for `runc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    elastic_mem::cli::main()
}
