//! Which files are opened, and which are refused and left alone.

use super::*;
use sqlx::Connection;
use std::os::unix::fs::PermissionsExt;

fn mode(path: &Path) -> u32 {
    path.metadata().expect("metadata").permissions().mode() & 0o777
}

#[tokio::test]
async fn only_the_owner_can_read_any_of_the_files() {
    let (_directory, path) = place();
    let store = open(&path).await.expect("a store");
    store.recorder().record(numbered(1));
    store.recorder().flush(LONG).await.expect("written");
    let state = path.parent().expect("a parent");
    assert_eq!(mode(state), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(state).expect("entries") {
        let entry = entry.expect("an entry");
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().expect("text"));
    }
    assert!(names.contains(&"audit.db-wal".to_owned()), "{names:?}");
    store.close(LONG).await.expect("closed");
}

#[tokio::test]
async fn a_file_that_others_could_read_is_closed_to_them() {
    let (_directory, path) = place();
    open(&path)
        .await
        .expect("a store")
        .close(LONG)
        .await
        .expect("closed");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("opened");
    open(&path)
        .await
        .expect("a store")
        .close(LONG)
        .await
        .expect("closed");
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn a_second_agent_is_refused_and_told_who_has_the_file() {
    let (_directory, path) = place();
    let store = open(&path).await.expect("a store");
    match refusal(&path).await {
        AuditError::InUse { holder, .. } => {
            assert_eq!(holder, Some(std::process::id().to_string()));
        }
        other => panic!("{other}"),
    }
    store.close(LONG).await.expect("closed");
    open(&path)
        .await
        .expect("free again")
        .close(LONG)
        .await
        .expect("closed");
}

#[tokio::test]
async fn the_sequence_goes_on_over_restarts_and_shows_what_was_deleted() {
    let (_directory, path) = place();
    for n in 1..=2 {
        let store = open(&path).await.expect("a store");
        store.recorder().record(numbered(n));
        store.close(LONG).await.expect("closed");
    }
    let mut stranger = stranger(&path).await;
    sqlx::query("DELETE FROM records WHERE sequence = 2")
        .execute(&mut stranger)
        .await
        .expect("gone");
    stranger.close().await.expect("closed");
    let store = open(&path).await.expect("a store");
    store.recorder().record(numbered(3));
    store.close(LONG).await.expect("closed");
    let sequences: Vec<_> = all(&path)
        .await
        .iter()
        .map(|record| record.sequence)
        .collect();
    assert_eq!(sequences, [1, 3]);
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_as_it_was() {
    let (_directory, path) = place();
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    for content in [&b"x"[..], b"# notes\n", &[0; 5_000], &[0xff; 100]] {
        std::fs::write(&path, content).expect("a file");
        for error in [
            refusal(&path).await,
            Reader::open(&path).await.expect_err("a refusal"),
        ] {
            assert!(matches!(error, AuditError::NotAStore { .. }), "{error}");
            assert!(error.to_string().contains("left untouched"), "{error}");
        }
        assert_eq!(std::fs::read(&path).expect("still there"), content);
    }
}

#[tokio::test]
async fn another_programs_database_is_refused_and_left_as_it_was() {
    let (_directory, path) = place();
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(&path, b"").expect("a file");
    let mut theirs = stranger(&path).await;
    sqlx::query("CREATE TABLE records (sequence)")
        .execute(&mut theirs)
        .await
        .expect("a table");
    theirs.close().await.expect("closed");
    let before = std::fs::read(&path).expect("content");
    let error = refusal(&path).await;
    assert!(matches!(error, AuditError::NotAStore { .. }), "{error}");
    assert_eq!(std::fs::read(&path).expect("still there"), before);
}

#[tokio::test]
async fn links_and_directories_are_refused() {
    let (directory, path) = place();
    std::fs::create_dir_all(&path).expect("a directory");
    let error = refusal(&path).await;
    assert!(matches!(error, AuditError::NotAFile(_)), "{error}");
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &link).expect("a link");
    let error = refusal(&link).await;
    assert!(matches!(error, AuditError::NotAFile(_)), "{error}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let (directory, _) = place();
    let file = directory.path().join("file");
    std::fs::write(&file, b"").expect("a file");
    let error = refusal(&file.join("audit.db")).await;
    assert!(
        matches!(
            error,
            AuditError::Io {
                action: "create",
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains(&file.display().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_schema_from_the_future_is_refused_by_writer_and_reader() {
    let (_directory, path) = place();
    open(&path)
        .await
        .expect("a store")
        .close(LONG)
        .await
        .expect("closed");
    let mut future = stranger(&path).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'future', TRUE, x'00', 0)",
    )
    .execute(&mut future)
    .await
    .expect("a migration");
    future.close().await.expect("closed");
    for error in [
        refusal(&path).await,
        Reader::open(&path).await.expect_err("a refusal"),
    ] {
        assert!(
            matches!(error, AuditError::NewerSchema { found: 999, .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("use the newer version"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_interrupted_creation_is_finished_by_the_next_start() {
    let (_directory, path) = place();
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(&path, b"").expect("a file");
    let mut first = stranger(&path).await;
    sqlx::query("PRAGMA journal_mode = WAL")
        .execute(&mut first)
        .await
        .expect("a log");
    first.close().await.expect("closed");
    assert!(matches!(
        Reader::open(&path).await.expect_err("no schema"),
        AuditError::OlderSchema { found: 0, .. }
    ));
    open(&path)
        .await
        .expect("a store")
        .close(LONG)
        .await
        .expect("closed");
    assert_eq!(all(&path).await, []);
}

#[tokio::test]
async fn a_missing_file_is_not_made_by_a_reader() {
    let (_directory, path) = place();
    let error = Reader::open(&path).await.expect_err("nothing there");
    assert!(matches!(error, AuditError::Missing(_)), "{error}");
    assert!(!path.exists());
}
