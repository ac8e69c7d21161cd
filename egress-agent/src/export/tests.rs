//! Each format against the rules of its own specification.

use super::Format;
use crate::audit::StoredRecord;
use serde_json::Value;

/// A record from the JSON that it has in the store; absent fields are `null`.
fn record(json: &str) -> StoredRecord {
    let mut whole: Value = serde_json::to_value(crate::audit::sample_for_tests()).expect("JSON");
    let fields = whole.as_object_mut().expect("an object");
    for (name, value) in fields.iter_mut() {
        if ![
            "id",
            "node",
            "sequence",
            "time",
            "kind",
            "count",
            "labels",
            "relaxations",
        ]
        .contains(&name.as_str())
        {
            *value = Value::Null;
        }
    }
    let given: Value = serde_json::from_str(json).expect("JSON");
    for (name, value) in given.as_object().expect("an object") {
        assert!(fields.contains_key(name), "no field {name}");
        fields[name] = value.clone();
    }
    serde_json::from_value(whole).expect("a record")
}

fn denial() -> StoredRecord {
    record(
        r#"{"kind": "flow", "sandbox": "build", "sandbox_id": 3, "policy": "ci", "process": 4242,
            "command": "curl", "user": 1000, "hook": "connect", "address": "203.0.113.7", "port": 443,
            "protocol": "tcp", "name": "api.example.com", "verdict": "deny", "reason": "no_rule",
            "rule": {"file": "/etc/ci.yaml", "line": 7, "text": "domain x.example"}, "count": 41}"#,
    )
}

/// One of every kind and verdict, and what a sandbox would choose to do harm.
fn all_sorts() -> Vec<StoredRecord> {
    let mut all = vec![denial(), hostile()];
    for verdict in ["\"allow\"", "\"deny\"", "\"would_deny\"", "null"] {
        for kind in [
            "flow",
            "dns",
            "sandbox",
            "policy",
            "agent",
            "loss",
            "alert",
            "limit",
            "approval",
            "emergency",
            "evidence",
            "of tomorrow",
        ] {
            all.push(record(&format!(
                r#"{{"kind": "{kind}", "verdict": {verdict}}}"#
            )));
        }
        all.push(record(&format!(
            r#"{{"kind": "dns", "verdict": {verdict}, "name": "a.example", "query_type": "HTTPS", "hook": "resolver"}}"#
        )));
        all.push(record(&format!(
            r#"{{"kind": "flow", "verdict": {verdict}, "address": "2001:db8::7", "port": 9, "protocol": "132", "hook": "ingress"}}"#
        )));
    }
    all
}

fn hostile() -> StoredRecord {
    let nasty = "=cmd|'/c calc'!A1,\"x\"\r\nCEF:0|\\|a=b\u{1b}[2J\u{9b}\u{0}";
    let mut record = denial();
    record.command = Some(nasty.to_owned());
    record.detail = Some(nasty.to_owned());
    record
}

fn written(format: Format, record: &StoredRecord) -> String {
    let mut text = String::new();
    format.write(record, &mut text).expect("written");
    text
}

#[test]
fn every_format_writes_one_record_as_one_line_and_nothing_that_steers_a_terminal() {
    for format in [Format::Jsonl, Format::Ocsf, Format::Ecs, Format::Cef] {
        for record in all_sorts() {
            let text = written(format, &record);
            let line = text.strip_suffix('\n').expect("a whole line");
            assert!(
                !line.chars().any(char::is_control),
                "{}: {line:?}",
                format.name()
            );
        }
    }
}

/// Reads a line of RFC 4180: fields may be quoted, quotes are doubled.
fn csv_fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.strip_suffix("\r\n").expect("CRLF").chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut().expect("a field");
        match (quoted, character) {
            (true, '"') if characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            (true, '"') => quoted = false,
            (false, '"') => {
                assert!(field.is_empty(), "a quote inside an unquoted field: {text}");
                quoted = true;
            }
            (false, ',') => fields.push(String::new()),
            (false, '\r' | '\n') => panic!("an unquoted line end: {text:?}"),
            (_, other) => field.push(other),
        }
    }
    assert!(!quoted, "{text}");
    fields
}

#[test]
fn csv_has_a_heading_and_as_many_fields_in_every_line() {
    let heading = csv_fields(&Format::Csv.heading());
    for record in all_sorts() {
        let fields = csv_fields(&written(Format::Csv, &record));
        assert_eq!(fields.len(), heading.len(), "{fields:?}");
        let value = |name: &str| {
            let at = heading.iter().position(|field| field == name);
            fields[at.expect(name)].clone()
        };
        assert_eq!(value("sequence"), record.sequence.to_string());
        assert_eq!(value("kind"), record.kind);
        assert_eq!(value("verdict"), record.verdict.unwrap_or_default());
        assert_eq!(value("count"), record.count.to_string());
    }
}

#[test]
fn csv_holds_nothing_that_a_spreadsheet_would_run() {
    for nasty in [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        " =1",
        "\u{ff1d}1",
    ] {
        let mut record = denial();
        record.command = Some(nasty.to_owned());
        let fields = csv_fields(&written(Format::Csv, &record));
        let cell = fields
            .iter()
            .find(|field| field.trim_start_matches('\'') == nasty)
            .expect("the cell");
        assert_eq!(*cell, format!("'{nasty}"));
    }
}

/// The required attributes of the classes, of the base event, of the objects in
/// use, and of the `security_control` profile, from the schema 1.3.0.
fn check_ocsf(event: &Value) {
    let integer = |value: &Value, name: &str| {
        value[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} of {value}"))
    };
    let text = |value: &Value, name: &str| {
        let text = value[name].as_str();
        assert!(
            text.is_some_and(|text| !text.is_empty()),
            "{name} of {value}"
        );
    };
    for name in [
        "activity_id",
        "category_uid",
        "class_uid",
        "severity_id",
        "time",
        "type_uid",
    ] {
        integer(event, name);
    }
    let class = integer(event, "class_uid");
    let activity = integer(event, "activity_id");
    assert_eq!(integer(event, "type_uid"), class * 100 + activity);
    assert_eq!(integer(event, "category_uid"), class / 1000);
    assert!(integer(event, "severity_id") <= 6);
    assert!(integer(event, "status_id") <= 2);
    assert!(integer(event, "time") > 1_000_000_000_000, "milliseconds");
    let activities: &[u64] = match class {
        4001 => &[0, 1, 2, 3, 4, 5, 6, 7, 99],
        4003 => &[0, 1, 2, 6, 99],
        2004 => &[0, 1, 2, 3, 99],
        0 => &[0, 99],
        other => panic!("class {other}"),
    };
    assert!(activities.contains(&activity), "{event}");
    text(&event["metadata"], "version");
    text(&event["metadata"]["product"], "vendor_name");
    text(&event["metadata"]["product"], "name");
    integer(&event["device"], "type_id");
    text(&event["device"], "hostname");
    if matches!(class, 4001 | 4003) {
        assert!(
            event.get("dst_endpoint").is_some() || event.get("src_endpoint").is_some(),
            "at least one endpoint: {event}"
        );
        assert!(matches!(
            integer(&event["connection_info"], "direction_id"),
            1 | 2
        ));
    }
    if class == 2004 {
        text(&event["finding_info"], "title");
        text(&event["finding_info"], "uid");
    }
    if let Some(query) = event.get("query") {
        assert_eq!(class, 4003);
        text(query, "hostname");
    }
    if event.get("disposition_id").is_some() {
        assert!(integer(event, "action_id") <= 2);
        assert!([0, 1, 2, 17].contains(&integer(event, "disposition_id")));
        let profiles = event["metadata"]["profiles"].as_array().expect("profiles");
        assert!(profiles.contains(&"security_control".into()));
    }
    for observable in event["observables"].as_array().expect("observables") {
        text(observable, "name");
        integer(observable, "type_id");
        // Each points at an attribute that is there with that value.
        let path = observable["name"]
            .as_str()
            .expect("a name")
            .replace('.', "/");
        assert_eq!(
            event.pointer(&format!("/{path}")),
            observable.get("value"),
            "{event}"
        );
    }
}

#[test]
fn ocsf_events_have_what_their_class_requires() {
    for record in all_sorts() {
        let event: Value = serde_json::from_str(&written(Format::Ocsf, &record)).expect("JSON");
        check_ocsf(&event);
    }
}

#[test]
fn ocsf_tells_a_refused_connection_with_its_parties_and_its_rule() {
    let event: Value = serde_json::from_str(&written(Format::Ocsf, &denial())).expect("JSON");
    assert_eq!(event["class_uid"], 4001);
    assert_eq!(event["type_name"], "Network Activity: Refuse");
    assert_eq!(event["disposition"], "Blocked");
    assert_eq!(event["dst_endpoint"]["ip"], "203.0.113.7");
    assert_eq!(event["dst_endpoint"]["port"], 443);
    assert_eq!(event["dst_endpoint"]["hostname"], "api.example.com");
    assert_eq!(event["connection_info"]["protocol_num"], 6);
    assert_eq!(event["actor"]["process"]["pid"], 4242);
    assert_eq!(event["firewall_rule"]["uid"], "/etc/ci.yaml:7");
    assert_eq!(event["status_code"], "no_rule");
    assert_eq!(event["count"], 41);
    let query =
        record(r#"{"kind": "dns", "verdict": "deny", "name": "a.example", "query_type": "A"}"#);
    let event: Value = serde_json::from_str(&written(Format::Ocsf, &query)).expect("JSON");
    assert_eq!(event["class_uid"], 4003);
    assert_eq!(event["query"]["hostname"], "a.example");
    assert_eq!(event["query"]["type"], "A");
}

#[test]
fn ecs_events_use_the_words_that_ecs_allows() {
    let words = |value: &Value| -> Vec<String> {
        let list = value.as_array().expect("a list");
        list.iter()
            .map(|word| word.as_str().expect("text").to_owned())
            .collect()
    };
    for record in all_sorts() {
        let event: Value = serde_json::from_str(&written(Format::Ecs, &record)).expect("JSON");
        let time = event["@timestamp"].as_str().expect("a time");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert_eq!(event["ecs"]["version"], "8.11.0");
        let kind = event["event"]["kind"].as_str().expect("a kind");
        assert!(["alert", "event", "pipeline_error"].contains(&kind));
        let categories = words(&event["event"]["category"]);
        // The allowed types of each category, from the schema.
        let allowed: &[&str] = match categories[0].as_str() {
            "network" => &[
                "access",
                "allowed",
                "connection",
                "denied",
                "end",
                "info",
                "protocol",
                "start",
            ],
            "process" => &["access", "change", "end", "error", "info", "start"],
            "configuration" => &["access", "change", "creation", "deletion", "info"],
            "intrusion_detection" => &["allowed", "denied", "info"],
            other => panic!("category {other}"),
        };
        for word in words(&event["event"]["type"]) {
            assert!(allowed.contains(&word.as_str()), "{word} in {categories:?}");
        }
        let outcome = event["event"]["outcome"].as_str().expect("an outcome");
        assert!(["failure", "success", "unknown"].contains(&outcome));
    }
    let event: Value = serde_json::from_str(&written(Format::Ecs, &denial())).expect("JSON");
    assert_eq!(event["destination"]["ip"], "203.0.113.7");
    assert_eq!(event["destination"]["domain"], "api.example.com");
    assert_eq!(event["network"]["transport"], "tcp");
    assert_eq!(event["network"]["direction"], "egress");
    assert_eq!(event["process"]["name"], "curl");
    assert_eq!(event["rule"]["ruleset"], "ci");
    assert_eq!(event["egress"]["sandbox"], "build");
}

/// Splits at a separator that no backslash escapes.
fn split_unescaped(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        let part = parts.last_mut().expect("a part");
        if escaped {
            part.extend(['\\', character]);
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == separator {
            parts.push(String::new());
        } else {
            part.push(character);
        }
    }
    assert!(!escaped, "a lone backslash at the end: {text}");
    parts
}

#[test]
fn cef_headers_have_eight_parts_and_extensions_escape_what_separates() {
    for record in all_sorts() {
        let text = written(Format::Cef, &record);
        let mut parts = split_unescaped(text.trim_end_matches('\n'), '|');
        // Bars in the extension need no escape.
        let extension = parts.split_off(7).join("|");
        assert_eq!(parts[0], "CEF:0");
        let severity: u8 = parts[6].parse().expect("a severity");
        assert!(severity <= 10);
        // Every unescaped equals sign follows a key without a blank in it.
        let pairs = split_unescaped(&extension, '=');
        for before in &pairs[..pairs.len() - 1] {
            let key = before.rsplit(' ').next().expect("a key");
            assert!(
                !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric()),
                "{key:?} in {text}"
            );
        }
    }
    let text = written(Format::Cef, &hostile());
    assert!(text.contains(r"\r\nCEF:0|\\|a\=b"), "{text}");
    let text = written(Format::Cef, &denial());
    assert!(text.contains(" dst=203.0.113.7 dpt=443 "), "{text}");
    let v6 =
        record(r#"{"kind": "flow", "hook": "connect", "address": "2001:db8::7", "port": 443}"#);
    let text = written(Format::Cef, &v6);
    assert!(
        text.contains("c6a3=2001:db8::7 c6a3Label=Destination IPv6 Address"),
        "{text}"
    );
    assert!(!text.contains(" dst="), "{text}");
}
