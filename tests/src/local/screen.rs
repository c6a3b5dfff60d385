//! What a person sees.

use std::io::{self, IsTerminal, Write};

/// Writes for a terminal, and plainly for everything else.
#[derive(Debug)]
pub(super) struct Screen {
    styled: bool,
}

impl Screen {
    pub(super) fn new() -> Screen {
        Screen { styled: io::stdout().is_terminal() }
    }

    /// A heading: what comes next.
    pub(super) fn heading(&self, text: &str) {
        match self.styled {
            true => println!("\n\x1b[1m{text}\x1b[0m"),
            false => println!("\n{text}"),
        }
    }

    /// A line beside the story.
    pub(super) fn note(&self, text: &str) {
        match self.styled {
            true => println!("  \x1b[2m{text}\x1b[0m"),
            false => println!("  {text}"),
        }
    }

    /// A line of the story.
    pub(super) fn line(&self, text: &str) {
        println!("  {text}");
    }

    /// Text without a line's end, shown at once.
    pub(super) fn token(&self, text: &str) {
        print!("{text}");
        // A closed terminal ends the demo at the next whole line.
        let _ = io::stdout().flush();
    }
}
