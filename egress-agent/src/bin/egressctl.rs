//! The command line: see [`egress_agent::cli`].

fn main() -> std::process::ExitCode {
    egress_agent::cli::main()
}
