//! From OpenMetrics to the older text format.

/// The same metrics in the text format of Prometheus, version 0.0.4. There a
/// counter's description has the name of its series, `_total` included.
pub(super) fn from_open_metrics(text: &str) -> String {
    // A description comes before its type, so counters are looked for first.
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut classic = String::with_capacity(text.len() + 8 * counters.len());
    for line in text.lines() {
        let described = line
            .strip_prefix("# HELP ")
            .or_else(|| line.strip_prefix("# TYPE "));
        if let Some(described) = described
            && let Some((name, rest)) = described.split_once(' ')
        {
            let total = if counters.contains(&name) {
                "_total"
            } else {
                ""
            };
            let keyword = &line[..line.len() - described.len()];
            classic.push_str(&format!("{keyword}{name}{total} {rest}"));
        } else if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        } else {
            classic.push_str(line);
        }
        classic.push('\n');
    }
    classic
}
