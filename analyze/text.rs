//! Text for people. Names from the host are another's data: they must not move a cursor or forge a line.

use std::borrow::Cow;

/// `text` with control characters, and what turns the direction of text, as escapes.
pub fn plain(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .flat_map(|c| if harmless(c) { Escaped::One(Some(c)) } else { Escaped::Many(c.escape_default()) })
        .collect::<String>()
        .into()
}

/// JSON in which, beyond what JSON asks for, the control characters from 0x7f to 0x9f are escaped.
pub fn for_terminals(json: String) -> String {
    let is_control = |c: char| matches!(c, '\u{7f}'..='\u{9f}');
    if !json.contains(is_control) {
        return json;
    }
    json.chars().map(|c| if is_control(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() }).collect()
}

enum Escaped {
    One(Option<char>),
    Many(std::char::EscapeDefault),
}

impl Iterator for Escaped {
    type Item = char;
    fn next(&mut self) -> Option<char> {
        match self {
            Escaped::One(c) => c.take(),
            Escaped::Many(c) => c.next(),
        }
    }
}

/// A duration in the unit in which it reads best.
pub fn duration(ns: u64) -> String {
    let n = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", n / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", n / 1e6),
        _ => format!("{:.3} s", n / 1e9),
    }
}

/// Bytes in the unit in which they read best.
pub fn bytes(bytes: u64) -> String {
    let n = bytes as f64;
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", n / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n / 1048576.0),
        _ => format!("{:.2} GiB", n / 1073741824.0),
    }
}

/// A number with its digits in groups of three.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `part` of `whole` in percent.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Unix ns as `2026-11-22 17:04:05 UTC`.
pub fn utc(unix_ns: i64) -> String {
    let seconds = unix_ns.div_euclid(1_000_000_000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date, in years that begin in March, so that the leap day comes last.
    let z = days + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_lie_still() {
        assert_eq!(plain("nginx: worker"), "nginx: worker");
        assert_eq!(plain("a\x1b[2J\nb\u{9b}\u{202e}"), "a\\u{1b}[2J\\nb\\u{9b}\\u{202e}");
    }

    #[test]
    fn json_that_a_terminal_may_be_given() {
        let json = for_terminals(serde_json::json!(["a\u{9b}2J\u{7f}", "\u{1b}", "ä"]).to_string());
        assert_eq!(json, r#"["a\u009b2J\u007f","\u001b","ä"]"#);
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), ["a\u{9b}2J\u{7f}", "\u{1b}", "ä"]);
    }

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400_000_000_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_367_045_999_999_999), "2026-11-22 17:04:05 UTC");
        assert_eq!(utc(-1), "1969-12-31 23:59:59 UTC");
    }

    #[test]
    fn numbers() {
        assert_eq!([count(0), count(999), count(1000), count(1234567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([duration(999), duration(1500), duration(2_500_000)], ["999 ns", "1.5 us", "2.50 ms"]);
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
