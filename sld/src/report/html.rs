//! Text and numbers as HTML.

/// Text with the characters that mean something in HTML, attributes included, replaced.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// A class's name as HTML, as one says it.
pub fn spoken(class: &str) -> String {
    escape(&class.replace('_', " "))
}

/// JSON as the content of a script element: `</script>` must not occur in it.
pub fn json(value: &serde_json::Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

/// A duration: "38 s", "12 min 05 s", "3 h 20 min".
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A count with thin gaps: "1 233 540".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A number of parameters: "1.23 M".
pub fn millions(number: u64) -> String {
    match number {
        0..100_000 => format!("{:.0} k", number as f64 / 1e3),
        _ => format!("{:.2} M", number as f64 / 1e6),
    }
}

/// Percent with two decimals, as the field reports accuracy.
pub fn percent(value: f64) -> String {
    format!("{value:.2}%")
}

/// A table's column: its heading, and whether it holds numbers.
pub struct Column(pub &'static str, pub bool);

/// A comparison as a table. Each cell also carries its heading, for paper too narrow for columns. Rows are a
/// class and the cells, which are HTML.
pub fn table(columns: &[Column], rows: &[(&str, Vec<String>)]) -> String {
    let class = |number: bool| if number { " class=\"number\"" } else { "" };
    let mut text = String::from("<table class=\"comparison\"><thead><tr>");
    for Column(heading, number) in columns {
        text += &format!("<th{}>{heading}</th>", class(*number));
    }
    text += "</tr></thead><tbody>";
    for (kind, cells) in rows {
        text += &format!("<tr class=\"{kind}\">");
        for (Column(heading, number), cell) in columns.iter().zip(cells) {
            text += &format!("<td{} data-of=\"{heading}\">{cell}</td>", class(*number));
        }
        text += "</tr>";
    }
    text + "</tbody></table>"
}

/// A date and time, in seconds since 1970: "2026-11-27 03:18 UTC".
pub fn date(seconds: u64) -> String {
    // Years that begin in March end with the leap day; 400 of them have 146,097 days.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let (month, day) = ((march + 2) % 12 + 1, day - (153 * march + 2) / 5 + 1);
    let year = 400 * era + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, wanted) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_772_323_200, "2026-03-01 00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(seconds), wanted);
        }
    }

    #[test]
    fn numbers_are_told_as_people_write_them() {
        let counts = [0, 7, 123, 1_234, 123_456, 1_233_540].map(count);
        assert_eq!(counts, ["0", "7", "123", "1\u{202f}234", "123\u{202f}456", "1\u{202f}233\u{202f}540"]);
        assert_eq!([99_999, 100_000, 1_233_540].map(millions), ["100 k", "0.10 M", "1.23 M"]);
        assert_eq!(
            [-1.0, 38.04, 59.6, 725.0, 3599.4, 12_000.0].map(duration),
            ["-1.0 s", "38.0 s", "1 min 00 s", "12 min 05 s", "59 min 59 s", "3 h 20 min"]
        );
    }
}
