//! `egressctl audit verify`, `prove`, `key` and `rotate-key`: what the evidence is worth.

use super::cannot_be_read;
use crate::audit::{
    Exported, Finding, KeyFiles, PublicKey, Reader, Span, Summary, Verification, read_notes,
    read_public, verify_export, verify_postgres,
};
use crate::cli::exit::{Exit, Problem};
use crate::cli::output::print;
use clap::Args;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// The arguments of `egressctl audit verify`.
#[derive(Args, Debug)]
pub struct VerifyArguments {
    /// The audit file; only root may read it.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/egress/audit.db")]
    file: PathBuf,
    /// From this record on, by its sequence number.
    #[arg(long, value_name = "SEQUENCE")]
    from: Option<i64>,
    /// Up to this record.
    #[arg(long, value_name = "SEQUENCE")]
    to: Option<i64>,
    /// Checkpoints that were kept elsewhere, as a sink received them: the records
    /// must continue each of this chain.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["from", "to"])]
    checkpoint: Option<PathBuf>,
    /// Public keys that are trusted, one a line, as `audit key` prints them;
    /// otherwise those that lie beside the audit file.
    #[arg(long, value_name = "PATH")]
    public_key: Option<PathBuf>,
    /// Verify exported JSON lines instead; needs no agent and no audit file.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["from", "to", "checkpoint"])]
    export: Option<PathBuf>,
    /// The export has filters: records may be missing in it.
    #[arg(long, requires = "export")]
    filtered: bool,
    /// Verify what a node shipped to PostgreSQL instead.
    #[arg(long, value_name = "URL", requires_all = ["node", "public_key"],
          conflicts_with_all = ["from", "to", "checkpoint", "export"])]
    postgres: Option<String>,
    /// The node whose chains are verified there.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// The arguments of `egressctl audit prove`.
#[derive(Args, Debug)]
pub struct ProveArguments {
    /// The audit file; only root may read it.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/egress/audit.db")]
    file: PathBuf,
    /// The record, by its sequence number.
    #[arg(required_unless_present = "since", conflicts_with = "since")]
    sequence: Option<i64>,
    /// An older checkpoint: prove that the last one continues it.
    #[arg(long, value_name = "PATH")]
    since: Option<PathBuf>,
}

/// The arguments of `egressctl audit key` and `rotate-key`.
#[derive(Args, Debug)]
pub struct KeyArguments {
    /// The audit file that the key signs for.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/egress/audit.db")]
    file: PathBuf,
}

fn runtime() -> Result<tokio::runtime::Runtime, Problem> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Problem::failure)
}

fn read(path: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(path)
        .map_err(|error| Problem::failure(format!("cannot read {}: {error}", path.display())))
}

/// What was kept elsewhere: a file without any checkpoint would prove nothing.
fn checkpoints(path: &Path) -> Result<Vec<String>, Problem> {
    let notes = read_notes(&read(path)?);
    if notes.is_empty() {
        return Err(Problem::usage(format!(
            "{} holds no checkpoint",
            path.display()
        )));
    }
    Ok(notes)
}

/// Verifies, and says what is wrong first.
pub fn verify(arguments: VerifyArguments) -> Result<Exit, Problem> {
    let keys = match &arguments.public_key {
        Some(path) => Some(read_public(path).map_err(Problem::failure)?),
        None => None,
    };
    if let Some(path) = &arguments.export {
        return export(path, &keys.unwrap_or_default(), arguments.filtered);
    }
    if let (Some(url), Some(node)) = (&arguments.postgres, &arguments.node) {
        let keys = keys.unwrap_or_default();
        let found = runtime()?
            .block_on(verify_postgres(url, node, &keys))
            .map_err(Problem::failure)?;
        if found.is_empty() {
            return Err(Problem::failure(format!("no chain of `{node}` is there")));
        }
        for verification in found {
            tell(verification, true)?;
        }
        return Ok(Exit::Ok);
    }
    let kept = match arguments.checkpoint.as_deref() {
        Some(path) => checkpoints(path)?,
        None => Vec::new(),
    };
    let span = Span {
        from: arguments.from,
        to: arguments.to,
    };
    let given = keys.is_some();
    let keys = match keys {
        Some(keys) => keys,
        None => KeyFiles::beside(&arguments.file)
            .public()
            .map_err(cannot_be_read)?,
    };
    let verification = runtime()?.block_on(async {
        let reader = Reader::open(&arguments.file).await?;
        let verification = reader.verify(span, &keys, &kept).await;
        reader.close().await;
        verification
    });
    tell(verification.map_err(cannot_be_read)?, given)?;
    Ok(Exit::Ok)
}

fn tell(verification: Verification, keys_given: bool) -> Result<(), Problem> {
    let Verification {
        node,
        chain_id,
        result,
    } = verification;
    let summary = result.map_err(|finding: Finding| {
        Problem::new(
            Exit::Unverified,
            format!("chain {chain_id} of {node}: {finding}"),
        )
    })?;
    let Summary {
        records,
        erased,
        first,
        last,
        checkpoints,
        signed,
    } = summary;
    let mut text = format!(
        "chain {chain_id} of {node}: {records} records verified ({first} to {last}, {erased} of them erased by \
         retention), {checkpoints} checkpoints\n"
    );
    if signed < last {
        text.push_str(&format!(
            "records {} to {last} are not signed yet: the next checkpoint covers them\n",
            signed.max(first - 1) + 1
        ));
    }
    if !keys_given {
        text.push_str(
            "the public keys are those that lie beside the file; give --public-key to trust no file of this host\n",
        );
    }
    print(&text)
}

fn export(path: &Path, keys: &[PublicKey], filtered: bool) -> Result<Exit, Problem> {
    let file = File::open(path)
        .map_err(|error| Problem::failure(format!("cannot read {}: {error}", path.display())))?;
    let Exported {
        records,
        without_body,
        checkpoints,
        signed,
    } = verify_export(BufReader::new(file), keys, filtered)
        .map_err(|error| Problem::new(Exit::Unverified, error))?;
    let mut text = format!("{records} records verified, {without_body} without their body\n");
    text.push_str(&if keys.is_empty() {
        "no signature was looked at: give --public-key\n".to_owned()
    } else {
        format!("{checkpoints} checkpoints cover {signed} of them\n")
    });
    print(&text)?;
    Ok(Exit::Ok)
}

/// Prints a proof that needs no store to be verified.
pub fn prove(arguments: ProveArguments) -> Result<Exit, Problem> {
    let since = arguments.since.as_deref().map(read).transpose()?;
    let line = runtime()?.block_on(async {
        let reader = Reader::open(&arguments.file)
            .await
            .map_err(cannot_be_read)?;
        let line = match (since, arguments.sequence) {
            (Some(note), _) => reader.prove_consistency(&note).await,
            (None, sequence) => reader.prove(sequence.unwrap_or(1)).await,
        };
        reader.close().await;
        line.map_err(Problem::failure)
    })?;
    print(&format!("{line}\n"))?;
    Ok(Exit::Ok)
}

/// Prints the public keys, for whoever verifies elsewhere.
pub fn key(arguments: &KeyArguments) -> Result<Exit, Problem> {
    let keys = KeyFiles::beside(&arguments.file)
        .public()
        .map_err(cannot_be_read)?;
    let lines: String = keys.iter().map(|key| format!("{key}\n")).collect();
    print(&lines)?;
    Ok(Exit::Ok)
}

/// Makes a key that the agent takes over to.
pub fn rotate_key(arguments: &KeyArguments) -> Result<Exit, Problem> {
    let made = KeyFiles::beside(&arguments.file)
        .request_rotation()
        .map_err(cannot_be_read)?;
    print(if made {
        "a new key was made; a running agent takes over to it within seconds, else the next one does\n"
    } else {
        "a new key waits already; the agent takes over to it when it runs\n"
    })?;
    Ok(Exit::Ok)
}
