//! Looking after interfaces: what is missing is put back, what is new is found,
//! what is gone is ended.

use super::agent::Agent;
use super::link_facts::{describe, name_for};
use super::links::{Attached, Table, wait};
use crate::enforcer::HookChange;
use crate::link::Interface;
use crate::model::LinkSpec;
use crate::telemetry::ids;
use egress_common::Port;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Agent {
    /// Looks soon, in a thread that may wait.
    pub(super) fn look_soon(self: &Arc<Self>) {
        if self.links().awaited.swap(true, Ordering::AcqRel) {
            return;
        }
        let agent = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            agent.links().awaited.store(false, Ordering::Release);
            agent.look_at_interfaces();
        });
    }

    /// Looks whether everything is as it should be: programs in force, links
    /// as the host has them, new interfaces found, gone ones ended, ended
    /// connections out of the table.
    pub(super) fn look_at_interfaces(&self) {
        if *self.disarmed() {
            return;
        }
        let mut table = self.links().lock();
        let patterns = {
            let book = self.book();
            book.policies()
                .iter()
                .any(|policy| !policy.interfaces.is_empty())
        };
        if table.attached.is_empty() && table.denied.is_empty() && !patterns {
            return;
        }
        let all = match table.interfaces().map(|open| wait(open.all())) {
            Ok(Ok(all)) => all,
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%error, "interfaces cannot be looked after");
                table.interfaces = None;
                return;
            }
        };
        self.end_gone(&mut table, &all);
        self.refresh(&mut table, &all);
        self.discover(&mut table, &all);
        drop(table);
        self.sweep_connections();
    }

    fn end_gone(&self, table: &mut Table, all: &BTreeMap<u32, Interface>) {
        table.denied.retain(|index, _| all.contains_key(index));
        let is_gone = |index: &u32, attached: &Attached| {
            all.get(index)
                .is_none_or(|interface| interface.name != attached.spec.interface)
        };
        let gone: Vec<u32> = table
            .attached
            .iter()
            .filter(|(index, attached)| is_gone(index, attached))
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            let Some(attached) = table.attached.get(&index) else {
                continue;
            };
            let member = self.book().member(attached.sandbox).cloned();
            let Some(member) = member else { continue };
            if attached.is_own {
                // The sandbox goes on, reaching nobody, until its launcher ends it.
                if let Err(failure) = self.take_network(table, &member) {
                    tracing::warn!(error = failure.message, "a network cannot be ended yet");
                }
                continue;
            }
            match self.forget_interface(&member) {
                Ok(()) => {
                    let name = attached.spec.interface.clone();
                    table.attached.remove(&index);
                    self.tell_of_sandbox(
                        ids::SANDBOX_ENDED,
                        &member,
                        format!("ended: the interface {name} is gone"),
                    );
                }
                Err(failure) => {
                    tracing::warn!(error = failure.message, "a sandbox cannot be ended yet");
                }
            }
        }
    }

    /// Puts back what is missing, and follows what the host changed.
    fn refresh(&self, table: &mut Table, all: &BTreeMap<u32, Interface>) {
        for (index, attached) in &mut table.attached {
            let Some(interface) = all.get(index) else {
                continue;
            };
            let gateway = interface.controller.and_then(|index| all.get(&index));
            let gateway = gateway.unwrap_or(interface);
            match self.enforcer().inspect_link(*index) {
                Ok(None) => continue,
                Ok(Some(missing)) if missing.is_empty() => {}
                Ok(Some(missing)) => match self.enforcer().attach_link(*index) {
                    Ok(HookChange::Replaced) => {}
                    Ok(HookChange::Kept | HookChange::Attached) => self.tell(format!(
                        "enforcement disturbed: somebody detached {} at the interface {}; put back",
                        missing.join(", "),
                        interface.name
                    )),
                    Err(error) => tracing::error!(%error, "enforcement disturbed"),
                },
                Err(error) => tracing::error!(%error, "an interface cannot be looked at"),
            }
            if attached.is_own {
                if attached.places.is_empty() {
                    let member = self.book().member(attached.sandbox).cloned();
                    match member.map_or(Ok(Vec::new()), |m| self.reopen_inside(&m)) {
                        Ok(places) => attached.places = places,
                        Err(failure) => {
                            tracing::error!(error = failure.message, "names do not resolve there");
                        }
                    }
                }
                continue;
            }
            let policy = {
                let book = self.book();
                let compiled = book.policy_of(attached.sandbox);
                compiled.map(|compiled| Arc::clone(&compiled.policy))
            };
            let Some(policy) = policy else { continue };
            let mut link = match describe(&attached.spec, interface, gateway, &policy) {
                Ok(link) => link,
                Err(failure) => {
                    tracing::debug!(error = failure.message, "the link is not usable now");
                    continue;
                }
            };
            let same_places = link.gateway4 == attached.link.gateway4
                && link.gateway6 == attached.link.gateway6
                && !attached.places.is_empty();
            link.resolver_port = attached.link.resolver_port;
            link.swept = attached.link.swept;
            if !same_places {
                let port = Port::from_network(attached.link.resolver_port).host();
                attached.places.clear();
                match self.open_places(&mut link, gateway, port) {
                    Ok(places) => attached.places = places,
                    Err(failure) => {
                        tracing::error!(error = failure.message, "names do not resolve there");
                        link.resolver_port = 0;
                    }
                }
            }
            if link == attached.link {
                continue;
            }
            match self.enforcer().put_link(*index, &link) {
                Ok(()) => attached.link = link,
                Err(error) => tracing::error!(%error, "an interface's change is not in force"),
            }
        }
    }

    /// Finds interfaces that a policy applies to: denied at once, and a sandbox
    /// as soon as the host has said what is behind them.
    fn discover(&self, table: &mut Table, all: &BTreeMap<u32, Interface>) {
        for interface in all.values() {
            if table.attached.contains_key(&interface.index) || interface.mac.is_none() {
                continue;
            }
            let policy = self
                .book()
                .policies()
                .for_interface(&interface.name)
                .cloned();
            let Some(policy) = policy else {
                // No policy is for it any more.
                if table.denied.remove(&interface.index).is_some()
                    && let Err(error) = self.enforcer().detach_link(interface.index)
                {
                    tracing::error!(%error, "an interface stays denied");
                }
                continue;
            };
            if let Err(error) = self.enforcer().attach_link(interface.index) {
                self.take_down(table, interface, &error.to_string());
                continue;
            }
            let spec = Arc::new(LinkSpec {
                interface: interface.name.clone(),
                addresses: Vec::new(),
                mac: None,
                discovered: true,
            });
            let controller = interface.controller.and_then(|index| all.get(&index));
            let name = name_for(&spec.interface, |name| self.book().by_name(name).is_some());
            let begun = name
                .and_then(|name| self.attach(table, interface, controller, spec, name, &policy));
            if let Err(failure) = begun
                && table.denied.get(&interface.index) != Some(&failure.message)
            {
                self.tell(format!(
                    "the interface {} is denied until it can have policy {}: {}",
                    interface.name, policy.name, failure.message
                ));
                table.denied.insert(interface.index, failure.message);
            }
        }
    }

    /// Takes down what a policy names and no program can judge: it would carry
    /// everything else. Each look does it again, for whoever raises it meanwhile.
    fn take_down(&self, table: &mut Table, interface: &Interface, why: &str) {
        let lowered = match table.interfaces() {
            Ok(open) => wait(open.lower(interface.index)),
            Err(error) => Err(error),
        };
        let outcome = match lowered {
            Ok(()) => "is taken down".to_owned(),
            Err(error) => format!("is OPEN, as it cannot be taken down either ({error})"),
        };
        let text = format!(
            "the interface {} {outcome}, because it cannot be governed: {why}",
            interface.name
        );
        if table.denied.get(&interface.index) != Some(&text) {
            self.tell(text.clone());
            table.denied.insert(interface.index, text);
        }
    }
}
