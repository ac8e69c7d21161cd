//! Times as people type them.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Why text is no time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{text}` is no time: {reason}; write how long ago (`15m`, `1 hour ago`, `2d`), \
     `now`, `today`, `yesterday`, a date (`2026-11-20`, from 00:00 UTC) or an RFC 3339 time \
     (`2026-11-20T08:30:00Z`)"
)]
pub struct TimeError {
    text: String,
    reason: &'static str,
}

/// Reads a time expression; `now` is what it is relative to. Dates and times
/// without an offset are UTC, as everything that the store prints.
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, TimeError> {
    let refuse = |reason| TimeError {
        text: text.to_owned(),
        reason,
    };
    let trimmed = text.trim();
    let today = now.to_zoned(TimeZone::UTC).date();
    match trimmed.to_ascii_lowercase().as_str() {
        "" => return Err(refuse("it is empty")),
        "now" => return Ok(now),
        "today" => return midnight(today).ok_or_else(|| refuse("it is outside the calendar")),
        "yesterday" => {
            return today
                .yesterday()
                .ok()
                .and_then(midnight)
                .ok_or_else(|| refuse("it is outside the calendar"));
        }
        _ => {}
    }
    if trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refuse("a bare number has no unit"));
    }
    if let Ok(time) = trimmed.parse::<Timestamp>() {
        return Ok(time);
    }
    // Only a whole date: `2026-11-20T25:00` must not quietly become its day.
    if trimmed.len() == "2026-11-20".len()
        && let Ok(date) = trimmed.parse::<Date>()
    {
        return midnight(date).ok_or_else(|| refuse("it is outside the calendar"));
    }
    if let Ok(time) = trimmed.parse::<DateTime>() {
        return TimeZone::UTC
            .to_timestamp(time)
            .map_err(|_| refuse("it is outside the calendar"));
    }
    if trimmed.starts_with('+') {
        return Err(refuse("it lies in the future"));
    }
    let Ok(span) = trimmed.to_ascii_lowercase().parse::<Span>() else {
        return Err(refuse("it is none of the known forms"));
    };
    // Calendar units need a calendar; days are 24 hours in UTC.
    now.to_zoned(TimeZone::UTC)
        .checked_sub(span.abs())
        .map(|zoned| zoned.timestamp())
        .map_err(|_| refuse("it is too long ago"))
}

fn midnight(date: Date) -> Option<Timestamp> {
    TimeZone::UTC
        .to_timestamp(date.to_datetime(jiff::civil::Time::midnight()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().expect("a time")
    }

    #[test]
    fn every_form_means_what_it_says() {
        for (text, expected) in [
            ("now", "2026-03-01T12:00:00Z"),
            ("15m", "2026-03-01T11:45:00Z"),
            ("90s", "2026-03-01T11:58:30Z"),
            ("1 hour ago", "2026-03-01T11:00:00Z"),
            ("1 HOUR AGO", "2026-03-01T11:00:00Z"),
            ("2 hours 30 minutes ago", "2026-03-01T09:30:00Z"),
            ("1h30m", "2026-03-01T10:30:00Z"),
            ("-1h", "2026-03-01T11:00:00Z"),
            ("2d", "2026-02-27T12:00:00Z"),
            ("1 week ago", "2026-02-22T12:00:00Z"),
            ("1mo", "2026-02-01T12:00:00Z"),
            ("P1D", "2026-02-28T12:00:00Z"),
            ("today", "2026-03-01T00:00:00Z"),
            ("Yesterday", "2026-02-28T00:00:00Z"),
            ("2026-02-03", "2026-02-03T00:00:00Z"),
            ("2026-02-03T04:05", "2026-02-03T04:05:00Z"),
            ("2026-02-03 04:05:06", "2026-02-03T04:05:06Z"),
            ("2026-02-03T04:05:06.5Z", "2026-02-03T04:05:06.5Z"),
            ("2026-02-03T04:05:06+02:00", "2026-02-03T02:05:06Z"),
            ("  15m  ", "2026-03-01T11:45:00Z"),
        ] {
            let expected: Timestamp = expected.parse().expect("a time");
            assert_eq!(parse_time(text, now()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_text_and_the_forms() {
        for (text, reason) in [
            ("", "it is empty"),
            ("  ", "it is empty"),
            ("15", "a bare number has no unit"),
            ("+1h", "it lies in the future"),
            ("soon", "it is none of the known forms"),
            ("15 parsecs", "it is none of the known forms"),
            ("2026-13-01", "it is none of the known forms"),
            ("2026-02-30", "it is none of the known forms"),
            ("2026-02-03T25:00", "it is none of the known forms"),
            ("19998 years", "it is too long ago"),
        ] {
            let error = parse_time(text, now()).expect_err(text);
            assert_eq!(error.reason, reason, "{text}");
            assert!(error.to_string().contains("`15m`"), "{error}");
        }
    }
}
