//! What is wrong with a document that is no YAML, in words for its author.

use serde_saphyr::Location;

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Of the document.
    pub line: u64,
    /// In characters, of the line.
    pub column: u64,
}

impl Position {
    pub(super) fn of(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A mistake in YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where the parser stopped, if it says so.
    pub at: Option<Position>,
    /// What is wrong, in words that do not speak of the parser.
    pub message: String,
}

/// Parts of the parser's messages, and what they mean in a config.
const WORDS: &[(&str, &str)] = &[
    ("unclosed bracket", "this bracket is never closed"),
    ("unclosed quote", "this quotation mark is never closed"),
    ("misplaced bracket", "this bracket closes nothing"),
    ("invalid trailing content", "something stands behind the closing quotation mark"),
    ("unknown escape", "in double quotes a backslash begins an escape; use single quotes or write \\\\"),
    ("unexpected character", "a value that begins with this character needs quotes"),
    ("alias references", "a value that begins with * needs quotes"),
    ("multiple YAML documents", "a second document begins here (---); a config is one document"),
    ("simple key expected", "this line has no colon; a key is written KEY: value"),
    ("did not find expected '-'", "a section holds keys or a list, not both"),
    (
        "did not find expected key",
        "this line's indentation fits none above; keys of a section stand in one column",
    ),
    ("null into string", "a key is a name, KEY: value"),
    ("expected string scalar", "a key is a name, KEY: value"),
];

const OTHER: &str = "a section is written NAME: and below it, indented with spaces, its keys, KEY: value";

impl Mistake {
    /// What the parser's error about `text` means, and where its cause stands.
    pub(super) fn new(text: &str, error: &serde_saphyr::Error) -> Self {
        let said = error.to_string();
        let at = error.location().map(Position::of);
        let lines: Vec<&str> = text.lines().collect();
        let found = at.and_then(|at| {
            if said.contains("a tab") || said.starts_with("tabs") {
                tab(&lines, at)
            } else if said.starts_with("duplicate") {
                twice(&lines, at)
            } else if said.starts_with("illegal placement") {
                bracket(&lines, at)
            } else if said.starts_with("mapping values") {
                colon(&lines, at)
            } else {
                None
            }
        });
        let (at, why) = found.map_or_else(
            || {
                let known = WORDS.iter().find(|(part, _)| said.contains(part));
                (at, known.map_or(OTHER, |(_, words)| words).to_owned())
            },
            |(at, why)| (Some(at), why),
        );
        Self { at, message: format!("this is not valid YAML: {why}") }
    }
}

type Found = Option<(Position, String)>;

fn line<'a>(lines: &[&'a str], number: u64) -> Option<&'a str> {
    lines.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// The first line at or below the error that is indented with a tab.
fn tab(lines: &[&str], at: Position) -> Found {
    (at.line..=lines.len() as u64).find_map(|number| {
        let column = indentation(line(lines, number)?).chars().position(|c| c == '\t')? as u64 + 1;
        let why = format!("line {number} is indented with a tab; YAML wants spaces");
        Some((Position { line: number, column }, why))
    })
}

/// A key that is there again: where it stood first, going up as long as the section lasts.
fn twice(lines: &[&str], at: Position) -> Found {
    let name = |text: &str| {
        text.split([':', ',', '}']).next().unwrap_or("").trim().trim_matches(['"', '\'']).to_owned()
    };
    let here = line(lines, at.line)?;
    let key = name(here.get(at.column as usize - 1..)?);
    let depth = indentation(here).len();
    let first = (1..at.line)
        .rev()
        .map_while(|number| Some((number, line(lines, number)?)))
        .filter(|(_, text)| !text.trim().is_empty() && !text.trim_start().starts_with('#'))
        .take_while(|(_, text)| indentation(text).len() >= depth)
        .find(|(_, text)| indentation(text).len() == depth && name(text) == key);
    let place = first.map(|(number, _)| format!(", in lines {number} and {}", at.line)).unwrap_or_default();
    Some((at, format!("{key} is set twice{place}; remove one")))
}

/// A colon inside brackets: the bracket that was meant to be closed before.
fn bracket(lines: &[&str], at: Position) -> Found {
    let mut open = Vec::new();
    for number in 1..=at.line {
        for (column, c) in line(lines, number)?.chars().enumerate() {
            if number == at.line && column as u64 + 1 >= at.column {
                break;
            }
            match c {
                '#' => break,
                '[' | '{' => open.push(Position { line: number, column: column as u64 + 1 }),
                ']' | '}' => drop(open.pop()),
                _ => {}
            }
        }
    }
    Some((*open.last()?, "this bracket is never closed".into()))
}

/// A key where none can be: the line before lacks its colon, the line is indented too far, or the value itself
/// has a colon.
fn colon(lines: &[&str], at: Position) -> Found {
    let here = line(lines, at.line)?;
    let above =
        (1..at.line).rev().find(|&number| line(lines, number).is_some_and(|text| !text.trim().is_empty()));
    let before = here.chars().take(at.column as usize - 1).collect::<String>();
    if before.contains(": ") {
        return Some((at, "a value with a colon in it needs quotes".into()));
    }
    let (number, text) = above.and_then(|number| Some((number, line(lines, number)?)))?;
    if !text.contains(':') {
        let column = indentation(text).len() as u64 + 1;
        let why = format!("line {number} has no colon; a key is written KEY: value");
        return Some((Position { line: number, column }, why));
    }
    let why = format!("line {} is indented further than line {number}, which is no section", at.line);
    Some((Position { column: indentation(here).len() as u64 + 1, ..at }, why))
}

#[cfg(test)]
mod tests {
    /// The message about a document and the line and column it points at.
    fn told(text: &str) -> (u64, u64, String) {
        let mistake = super::super::parse(text).expect_err(text);
        let at = mistake.at.expect("a place");
        (
            at.line,
            at.column,
            mistake.message.strip_prefix("this is not valid YAML: ").expect("a beginning").into(),
        )
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_a_config_and_where_they_are() {
        for (text, line, column, wanted) in [
            ("A:\n  X: 2\n\tY: 0.1\n", 3, 1, "line 3 is indented with a tab; YAML wants spaces"),
            ("A:\n\tY: 0.1\n", 2, 1, "line 2 is indented with a tab"),
            ("A:\r\n  X: 0.1\r\n  \tY: 2\r\n", 3, 3, "line 3 is indented with a tab"),
            ("A:\n  X:\n  \t- 150\n", 3, 3, "line 3 is indented with a tab"),
            ("A:\n  X: 1\n  Y: 2\n  X: 3\n", 4, 3, "X is set twice, in lines 2 and 4; remove one"),
            ("A:\n  X: 1\n# X: 5\nB:\n  X: 1\nA:\n  X: 1\n", 6, 1, "A is set twice, in lines 1 and 6"),
            ("A:\n  X: 1\nB:\n  Y: 1\n  X: 2\n  'X': 3\n", 6, 3, "X is set twice, in lines 5 and 6"),
            ("A: {X: 1, X: 2}\n", 1, 11, "X is set twice; remove one"),
            ("A:\n  X: [1\n", 2, 6, "this bracket is never closed"),
            ("A:\n  X: [1, 2\n  Y: 3\n", 2, 6, "this bracket is never closed"),
            ("A:\n  X: 1]\n  Y: ]\n", 3, 6, "this bracket closes nothing"),
            ("A:\n  X: \"abc\n  Y: 3\n", 2, 6, "this quotation mark is never closed"),
            ("A:\n  X: \"a\" b\n", 2, 10, "something stands behind the closing quotation mark"),
            ("A:\n  X: \"\\q\"\n", 2, 6, "in double quotes a backslash begins an escape"),
            ("A:\n  X 0.1\n  Y: 2\n", 2, 3, "line 2 has no colon; a key is written KEY: value"),
            ("A\n  X: 0.1\n", 1, 1, "line 1 has no colon"),
            ("A:\n  X: 0.1\n  Y 2\n", 3, 3, "this line has no colon"),
            ("A:\n  X: 0.1\n   Y: 2\n", 3, 4, "line 3 is indented further than line 2, which is no section"),
            ("A:\n  X: 0.1\n Y: 2\n", 3, 2, "this line's indentation fits none above"),
            ("A:\n  X: a: b\n", 2, 7, "a value with a colon in it needs quotes"),
            ("A:\n  X: @x\n", 2, 6, "a value that begins with this character needs quotes"),
            ("A:\n  X: *x\n", 2, 6, "a value that begins with * needs quotes"),
            ("A: 1\n---\nB: 2\n", 3, 1, "a second document begins here"),
            ("A:\n  - X: 1\n  Y: 2\n", 3, 3, "a section holds keys or a list, not both"),
            ("~: 2\n", 1, 1, "a key is a name"),
        ] {
            let (found_line, found_column, message) = told(text);
            assert!(message.starts_with(wanted), "{text}\nsaid:   {message}\nwanted: {wanted}");
            assert_eq!((found_line, found_column), (line, column), "{text}\n{message}");
        }
        // Whatever else the parser may say, its own words are not for people.
        for text in ["<<: 3\n", "a\0b: 1\n", "A: &a [*a]\n", "? [a]\n: b\n", "A: !!int x\n"] {
            let (.., message) = told(text);
            assert!(
                !message.contains("u64") && !message.contains("merge") && !message.contains("weak"),
                "{message}"
            );
        }
    }
}
