//! Ends what policy no longer allows, so that nothing that was queued on it is
//! sent later.

use super::agent::Agent;
use super::book::{Book, Member};
use crate::enforcer::{EnforcerError, SocketTable};
use egress_common::CgroupId;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

impl Agent {
    /// Ends every live connection that policy no longer allows.
    pub(super) fn end_revoked(&self) -> Result<usize, EnforcerError> {
        let image = self.book().image();
        let cgroups = self.cgroups_of_sandboxes();
        let table = SocketTable::open()?;
        let mut ended = 0;
        for connection in table.live()? {
            let Some(sandbox) = cgroups.get(&connection.cgroup) else {
                continue;
            };
            if !Book::may_go_on(&image, *sandbox, &connection.to) {
                table.end(&connection)?;
                ended += 1;
            }
        }
        Ok(ended + self.end_revoked_at_interfaces(&image)?)
    }

    /// Every cgroup at or below a sandbox, with the sandbox's own.
    pub(super) fn cgroups_of_sandboxes(&self) -> BTreeMap<CgroupId, CgroupId> {
        let mut found = BTreeMap::new();
        let members: Vec<Member> = self.book().members().cloned().collect();
        for member in members {
            let Some(directory) = member.directory() else {
                continue;
            };
            let mut open = vec![self.root().path().join(directory)];
            while let Some(directory) = open.pop() {
                let Ok(metadata) = std::fs::metadata(&directory) else {
                    continue;
                };
                found.insert(CgroupId(metadata.ino()), member.cgroup);
                let Ok(entries) = std::fs::read_dir(&directory) else {
                    continue;
                };
                open.extend(
                    entries
                        .flatten()
                        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                        .map(|entry| entry.path()),
                );
            }
        }
        found
    }
}
