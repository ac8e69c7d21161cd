//! From links of a chain to a report.

use super::told::Told;
use super::{Counts, Entry, Line, List, Period, Report, Sandbox, Step, Table, Totals, Verified};
use crate::audit::{API_VERSION, Content, Entry as Link, Verification};
use crate::model::ResourceUse;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Lines of a table that are shown.
const SHOWN: usize = 50;
/// Different keys that are counted at a time: sandboxes choose names, and could
/// choose millions.
const MOST_KEYS: usize = 200_000;
/// Entries of a list.
const LONGEST_LIST: usize = 1_000;
/// Bytes of a diff.
const LONGEST_DIFF: usize = 8_192;
/// A period that is longer is told by months.
const BY_DAY: SignedDuration = SignedDuration::from_hours(24 * 92);

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// What has been seen of a period.
#[derive(Debug)]
pub struct Collection {
    period: Period,
    totals: Totals,
    days: BTreeMap<i64, Counts>,
    sandboxes: Keyed<SandboxSum>,
    allowed: Keyed<Sum>,
    denied: Keyed<Sum>,
    reasons: Keyed<Sum>,
    rules: Keyed<Sum>,
    policy_changes: Latest,
    acts: Latest,
    alerts: Latest,
    gaps: Latest,
    evidence: Latest,
    agent: Latest,
    /// Used again for each key.
    key: String,
}

/// Counts by a key, of which there may be more than are kept.
#[derive(Debug, Default)]
struct Keyed<T> {
    kept: HashMap<String, T>,
    /// Decisions of keys that found no place.
    beyond: u64,
}

/// Decisions of one key, and when.
#[derive(Clone, Copy, Debug)]
struct Sum {
    count: u64,
    first: i64,
    last: i64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            count: 0,
            first: i64::MAX,
            last: i64::MIN,
        }
    }
}

impl Sum {
    fn add(&mut self, count: u64, time: i64) {
        self.count = self.count.saturating_add(count);
        self.first = self.first.min(time);
        self.last = self.last.max(time);
    }
}

#[derive(Debug, Default)]
struct SandboxSum {
    all: Sum,
    decisions: Counts,
    policy: Option<String>,
    ended: u64,
    usage: ResourceUse,
    limits_met: u64,
}

impl<T: Default> Keyed<T> {
    fn of(&mut self, key: &str, count: u64) -> Option<&mut T> {
        if !self.kept.contains_key(key) {
            if self.kept.len() >= MOST_KEYS {
                self.beyond = self.beyond.saturating_add(count);
                return None;
            }
            self.kept.insert(key.to_owned(), T::default());
        }
        self.kept.get_mut(key)
    }
}

impl Keyed<Sum> {
    fn add(&mut self, key: &str, count: u64, time: i64) {
        if let Some(sum) = self.of(key, count) {
            sum.add(count, time);
        }
    }

    fn table(self) -> Table<Line> {
        let lines = self.kept.into_iter().map(|(what, sum)| Line {
            what,
            count: sum.count,
            first: moment(sum.first),
            last: moment(sum.last),
        });
        table(
            lines.collect(),
            self.beyond,
            |line| line.count,
            |line| &line.what,
        )
    }
}

/// The largest lines; those of one size in the order of their names.
fn table<T>(
    mut lines: Vec<T>,
    beyond: u64,
    count: impl Fn(&T) -> u64,
    name: impl Fn(&T) -> &String,
) -> Table<T> {
    lines.sort_by(|a, b| count(b).cmp(&count(a)).then_with(|| name(a).cmp(name(b))));
    let rest = lines.get(SHOWN..).unwrap_or_default();
    let left_out = rest.iter().map(count).fold(beyond, u64::saturating_add);
    lines.truncate(SHOWN);
    Table { lines, left_out }
}

/// The latest entries.
#[derive(Debug, Default)]
struct Latest {
    entries: VecDeque<Entry>,
    left_out: u64,
}

impl Latest {
    fn push(&mut self, told: &Told<'_>, link: &Link) {
        if self.entries.len() == LONGEST_LIST {
            self.entries.pop_front();
            self.left_out += 1;
        }
        let text = |text: &Option<crate::audit::Text<'_>>| text.as_ref().map(|it| it.to_string());
        self.entries.push_back(Entry {
            time: moment(link.header.time),
            sequence: link.header.sequence,
            kind: told.kind.to_string(),
            who: told.who(),
            sandbox: text(&told.sandbox),
            verdict: text(&told.verdict),
            count: told.count,
            detail: text(&told.detail),
            digest: text(&told.digest),
            diff: told.diff.as_ref().map(|diff| cut(diff)),
        });
    }

    fn list(self) -> List {
        let mut entries = Vec::from(self.entries);
        entries.sort_by_key(|entry| (entry.time, entry.sequence));
        List {
            entries,
            left_out: self.left_out,
        }
    }
}

fn cut(diff: &str) -> String {
    if diff.len() <= LONGEST_DIFF {
        return diff.to_owned();
    }
    let end = (0..=LONGEST_DIFF)
        .rev()
        .find(|at| diff.is_char_boundary(*at));
    let kept = &diff[..end.unwrap_or(0)];
    let left_out = diff.lines().count() - kept.lines().count();
    format!("{kept}\n({left_out} more lines)\n")
}

/// Microseconds since 1970 as a time; what is in no calendar is 1970.
fn moment(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Collection {
    /// Nothing has been seen yet.
    pub fn new(since: Timestamp, until: Timestamp) -> Self {
        Self {
            period: Period { since, until },
            totals: Totals::default(),
            days: BTreeMap::new(),
            sandboxes: Keyed::default(),
            allowed: Keyed::default(),
            denied: Keyed::default(),
            reasons: Keyed::default(),
            rules: Keyed::default(),
            policy_changes: Latest::default(),
            acts: Latest::default(),
            alerts: Latest::default(),
            gaps: Latest::default(),
            evidence: Latest::default(),
            agent: Latest::default(),
            key: String::new(),
        }
    }

    /// Takes one link of the chain; what is outside of the period is left out.
    pub fn see(&mut self, link: &Link) {
        let time = link.header.time;
        if time < self.period.since.as_microsecond() || time >= self.period.until.as_microsecond() {
            return;
        }
        self.totals.records += 1;
        let body = match &link.content {
            Content::Body(body) => body,
            Content::Erased(_) => {
                self.totals.erased += 1;
                return;
            }
            Content::Unreadable => {
                self.totals.unreadable += 1;
                return;
            }
        };
        match serde_json::from_str::<Told<'_>>(body) {
            Ok(told) => self.take(&told, link),
            Err(_) => self.totals.unreadable += 1,
        }
    }

    fn take(&mut self, told: &Told<'_>, link: &Link) {
        match &*told.kind {
            "flow" => self.decision(told, link.header.time),
            "dns" => {
                self.totals.queries = self.totals.queries.saturating_add(told.count);
                self.decision(told, link.header.time);
            }
            "policy" => self.policy_changes.push(told, link),
            "approval" | "emergency" => self.acts.push(told, link),
            "alert" => {
                self.totals.alerts += 1;
                self.alerts.push(told, link);
            }
            "loss" => {
                self.totals.lost = self.totals.lost.saturating_add(told.count);
                self.gaps.push(told, link);
            }
            "evidence" => self.evidence.push(told, link),
            "agent" => self.agent.push(told, link),
            _ => {}
        }
        self.sandbox(told, link.header.time);
    }

    fn decision(&mut self, told: &Told<'_>, time: i64) {
        let Some(verdict) = told.verdict.as_deref() else {
            return;
        };
        let day = self.days.entry(time.div_euclid(DAY)).or_default();
        for counts in [day, &mut self.totals.decisions] {
            counts.add(verdict, told.count);
        }
        told.destination(&mut self.key);
        if verdict == "allow" {
            self.allowed.add(&self.key, told.count, time);
            if let Some(rule) = &told.rule {
                let text = rule.text.as_deref().unwrap_or_default();
                let what = format!("{}:{} {text}", &*rule.file, rule.line);
                self.rules.add(what.trim_end(), told.count, time);
            }
        } else {
            self.denied.add(&self.key, told.count, time);
            let reason = told.reason.as_deref().unwrap_or("(no reason)");
            self.reasons.add(reason, told.count, time);
        }
    }

    fn sandbox(&mut self, told: &Told<'_>, time: i64) {
        let limit = *told.kind == *"limit"
            || (*told.kind == *"sandbox" && told.verdict.as_deref() == Some("deny"));
        self.totals.limits_met += u64::from(limit);
        self.totals.sandboxes_ended += u64::from(told.usage.is_some());
        let Some(name) = told.sandbox.as_deref() else {
            return;
        };
        let decides = matches!(&*told.kind, "flow" | "dns");
        let count = if decides { told.count } else { 0 };
        let Some(sum) = self.sandboxes.of(name, count) else {
            return;
        };
        sum.all.add(count, time);
        sum.limits_met += u64::from(limit);
        if sum.policy.as_deref() != told.policy.as_deref() && told.policy.is_some() {
            sum.policy = told.policy.as_deref().map(str::to_owned);
        }
        if decides && let Some(verdict) = told.verdict.as_deref() {
            sum.decisions.add(verdict, told.count);
        }
        if let Some(usage) = &told.usage {
            sum.ended += 1;
            sum.usage.join(usage);
        }
    }

    /// What came of it.
    pub fn report(self, verification: &Verification, keys_given: bool, made: Timestamp) -> Report {
        let sandboxes = self.sandboxes.kept.into_iter().map(|(name, sum)| Sandbox {
            name,
            policy: sum.policy,
            decisions: sum.decisions,
            ended: sum.ended,
            usage: sum.usage,
            limits_met: sum.limits_met,
            first: moment(sum.all.first),
            last: moment(sum.all.last),
        });
        let beyond = self.sandboxes.beyond;
        let all = |sandbox: &Sandbox| sandbox.decisions.all();
        Report {
            api_version: API_VERSION,
            kind: "EvidenceReport",
            made_by: concat!("egressctl ", env!("CARGO_PKG_VERSION")).to_owned(),
            made,
            node: verification.node.clone(),
            chain: verification.chain_id.clone(),
            verification: Verified::of(verification, keys_given),
            activity: steps(&self.days, self.period),
            period: self.period,
            totals: self.totals,
            sandboxes: table(sandboxes.collect(), beyond, all, |sandbox| &sandbox.name),
            allowed: self.allowed.table(),
            denied: self.denied.table(),
            reasons: self.reasons.table(),
            rules: self.rules.table(),
            policy_changes: self.policy_changes.list(),
            acts: self.acts.list(),
            alerts: self.alerts.list(),
            gaps: self.gaps.list(),
            evidence: self.evidence.list(),
            agent: self.agent.list(),
        }
    }
}

impl Counts {
    fn add(&mut self, verdict: &str, count: u64) {
        let to = match verdict {
            "allow" => &mut self.allowed,
            "deny" => &mut self.denied,
            "would_deny" => &mut self.would_deny,
            _ => return,
        };
        *to = to.saturating_add(count);
    }

    /// All of them together.
    pub const fn all(&self) -> u64 {
        self.allowed
            .saturating_add(self.denied)
            .saturating_add(self.would_deny)
    }
}

/// Every day from the first to the last that has something, or every month.
fn steps(days: &BTreeMap<i64, Counts>, period: Period) -> Vec<Step> {
    let by_day = period.until.duration_since(period.since) <= BY_DAY;
    let mut steps: BTreeMap<Date, Counts> = BTreeMap::new();
    for (day, counts) in days {
        let date = moment(day.saturating_mul(DAY))
            .to_zoned(TimeZone::UTC)
            .date();
        let date = if by_day { date } else { date.first_of_month() };
        let sum = steps.entry(date).or_default();
        for (verdict, count) in [
            ("allow", counts.allowed),
            ("deny", counts.denied),
            ("would_deny", counts.would_deny),
        ] {
            sum.add(verdict, count);
        }
    }
    // What had nothing is told as nothing.
    if let (Some(first), Some(last)) = (steps.keys().next(), steps.keys().last()) {
        let (first, last) = (*first, *last);
        let days = first.series(jiff::Span::new().days(1));
        for day in days.take_while(|day| *day <= last) {
            let day = if by_day { day } else { day.first_of_month() };
            steps.entry(day).or_default();
        }
    }
    let step = |(day, decisions)| Step { day, decisions };
    steps.into_iter().map(step).collect()
}
