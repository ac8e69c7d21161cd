//! The daemon: see [`egress_agent::daemon`].

fn main() -> std::process::ExitCode {
    egress_agent::cli::agent_main()
}
