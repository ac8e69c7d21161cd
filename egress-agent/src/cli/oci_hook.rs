//! `egressctl oci-hook`: a `createRuntime` hook that lets no container start that
//! the agent does not confirm.

use super::exit::{Exit, Problem};
use super::operate::ask;
use crate::api::Client;
use crate::api::wire::Adopt;
use crate::sandbox::Hierarchy;
use crate::sandbox::contract::examine_container;
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Reads the container's state from standard input, as the OCI runtime
/// specification has it, and ends with 0 only if the container is enforced.
pub fn run(socket: &Path) -> Result<Exit, Problem> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(Problem::failure)?;
    let state: Value = serde_json::from_str(&text).map_err(|error| {
        Problem::usage(format!("standard input is no container state: {error}"))
    })?;
    let process = state["pid"]
        .as_u64()
        .filter(|process| *process > 0)
        .ok_or_else(|| Problem::usage("the container's state has no `pid`"))?;
    let bundle = state["bundle"]
        .as_str()
        .ok_or_else(|| Problem::usage("the container's state has no `bundle`"))?;
    let client = Client::new(socket);
    let root = ask(client.status())?.root;
    let directory = directory_of(process, &root)?;
    let config = Path::new(bundle).join("config.json");
    let config = std::fs::read(&config)
        .map_err(|error| Problem::failure(format!("{}: {error}", config.display())))?;
    let config: Value = serde_json::from_slice(&config).map_err(Problem::failure)?;
    let findings = examine_container(&config)
        .into_iter()
        .map(|finding| (finding.words, finding.open))
        .collect();
    let adopted = ask(client.adopt(&Adopt {
        directory,
        findings,
    }))?;
    // An engine keeps what a hook says for its log.
    eprintln!(
        "egressctl: container {} is sandbox {} under policy {}",
        state["id"].as_str().unwrap_or_default(),
        adopted.name,
        adopted.policy
    );
    Ok(Exit::Ok)
}

/// The child of the governed root that a process is in.
fn directory_of(process: u64, root: &Path) -> Result<String, Problem> {
    let memberships = std::fs::read_to_string(format!("/proc/{process}/cgroup"))
        .map_err(|error| Problem::failure(format!("process {process}: {error}")))?;
    let path = memberships
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or_else(|| Problem::failure(format!("process {process} is in no cgroup2 cgroup")))?;
    let mount = Hierarchy::find()
        .map_err(Problem::failure)?
        .path()
        .to_owned();
    let own: PathBuf = mount.join(path.trim_start_matches('/'));
    own.strip_prefix(root)
        .ok()
        .and_then(|below| below.components().next())
        .and_then(|first| first.as_os_str().to_str())
        .map(str::to_owned)
        .ok_or_else(|| {
            Problem::failure(format!(
                "the container's cgroup {} is not below {}, so nothing is enforced in it; start it with \
                 `--cgroup-parent={}`",
                own.display(),
                root.display(),
                root.file_name().unwrap_or_default().display()
            ))
        })
}
