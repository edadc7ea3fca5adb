//! What of text goes to a terminal: as wide as it is, and with colours where these are wanted.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};

use clap::ValueEnum;

/// When text has colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal that takes them, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Narrower than this nothing can be read.
const NARROWEST: usize = 20;

/// Where text goes.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    width: Option<usize>,
    colour: bool,
}

impl Screen {
    /// Standard output.
    pub fn new(color: Color) -> Screen {
        let is_terminal = io::stdout().is_terminal();
        let var = |name: &str| std::env::var_os(name);
        let size = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Screen {
            width: is_terminal.then(|| columns(var("COLUMNS").as_deref(), size)).flatten(),
            colour: match color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => is_terminal && takes_colours(var("NO_COLOR").as_deref(), var("TERM").as_deref()),
            },
        }
    }

    /// Characters that a line has room for; `None` where that is nobody's concern: text that goes into a pipe is the same
    /// whatever terminal there is.
    pub fn width(&self) -> Option<usize> {
        self.width
    }

    /// Text as it is to be shown: longer lines are cut, and that can be seen; but notes, which are sentences, are left to wrap.
    pub fn show<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.width.is_none() && !self.colour {
            return text.into();
        }
        let mut out = String::with_capacity(text.len() * 2);
        for line in text.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            let line = match self.width {
                Some(width) if !line.starts_with("# ") => cut(line, width),
                _ => line.into(),
            };
            if self.colour {
                paint(&line, &mut out);
            } else {
                out.push_str(&line);
            }
            out.push_str(end);
        }
        out.into()
    }
}

/// COLUMNS stands before what the terminal says, as with other programs.
fn columns(variable: Option<&OsStr>, size: Option<usize>) -> Option<usize> {
    let own = variable.and_then(|v| v.to_str()?.trim().parse::<usize>().ok()).filter(|n| *n > 0);
    own.or(size.filter(|n| *n > 0)).map(|n| n.max(NARROWEST))
}

/// See no-color.org: NO_COLOR counts when it is not empty.
fn takes_colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|term| term != "dumb" && !term.is_empty())
}

fn cut(line: &str, width: usize) -> Cow<'_, str> {
    if line.chars().count() <= width {
        return line.into();
    }
    line.chars().take(width - 1).chain(['…']).collect::<String>().into()
}

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";

/// Titles stand out, and what endangers the figures; bars are no text.
fn paint(line: &str, out: &mut String) {
    let in_colour = |colour: &str, text: &str, out: &mut String| {
        if !text.is_empty() {
            [colour, text, RESET].iter().for_each(|part| out.push_str(part));
        }
    };
    let warns = ["lost: ", "damaged: ", "incomplete: "];
    if let Some(note) = line.strip_prefix("# ") {
        let warning =
            warns.iter().any(|w| note.trim_start_matches("before: ").trim_start_matches("after: ").starts_with(w));
        return in_colour(if warning { YELLOW } else { DIM }, line, out);
    }
    if line.starts_with("== ") {
        return in_colour(BOLD, line, out);
    }
    if let Some((head, bar)) = line.split_once(" |").filter(|(head, _)| head.contains(" -> ") && head.contains(" : "))
        && let Some(bar) = bar.strip_suffix('|')
    {
        out.push_str(head);
        out.push_str(" |");
        in_colour(CYAN, bar, out);
        out.push('|');
        return;
    }
    match line.split_once("more than noise (") {
        Some((before, after)) => {
            out.push_str(before);
            in_colour(RED, "more than noise", out);
            out.push_str(" (");
            out.push_str(after);
        }
        None => out.push_str(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths() {
        let columns = |variable: &str, size| columns(Some(OsStr::new(variable)), size);
        assert_eq!(
            [columns("100", Some(80)), columns("x", Some(80)), columns("0", Some(80))],
            [Some(100), Some(80), Some(80)]
        );
        assert_eq!([columns("", None), columns("3", None)], [None, Some(NARROWEST)]);
        assert_eq!((cut("äöü", 3), cut("äöüß", 3)), ("äöü".into(), "äö…".into()));
    }

    #[test]
    fn colours_where_they_are_wanted() {
        let takes = |no: Option<&str>, term: Option<&str>| takes_colours(no.map(OsStr::new), term.map(OsStr::new));
        assert!(takes(None, Some("xterm")) && takes(Some(""), Some("linux")));
        assert!(!takes(Some("1"), Some("xterm")) && !takes(None, Some("dumb")) && !takes(None, None));
    }

    #[test]
    fn text_without_colours_is_the_same() {
        let text = "== t\n     4 -> 7  : 5        |***  |\n# lost: 3 events (sched)\n# 5 samples\np50  1  more than noise (p 0.01)\nx";
        let plain = Screen { width: None, colour: false };
        assert_eq!(plain.show(text), text);
        let shown = Screen { width: None, colour: true }.show(text).into_owned();
        let colours = [BOLD, CYAN, YELLOW, DIM, RED];
        assert!(colours.iter().all(|colour| shown.matches(colour).count() == 1), "{shown:?}");
        let bare = [&colours[..], &[RESET]].concat().iter().fold(shown, |text, colour| text.replace(colour, ""));
        assert_eq!(bare, text);
        let narrow = Screen { width: Some(22), colour: false }.show(text).into_owned();
        assert!(
            narrow.contains("# lost: 3 events (sched)\n") && narrow.contains("p50  1  more than noi…\n"),
            "{narrow}"
        );
    }
}
